package main

import (
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func TestReportOnly(t *testing.T) {
	open := echo.New() // as routes makes it, without a guard
	open.GET("/healthz", healthz)
	open.GET("/products", list)
	open.POST("/products", create)
	open.GET("/whoami", whoami)
	contract.TestReportOnly(t, routes, shopapi.HeadAsGet(open))
}
