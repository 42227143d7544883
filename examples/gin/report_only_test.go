package main

import (
	"io"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func TestReportOnly(t *testing.T) {
	gin.SetMode(gin.TestMode)
	stdout := gin.DefaultWriter
	gin.DefaultWriter = io.Discard
	defer func() { gin.DefaultWriter = stdout }()
	open := gin.New() // as routes makes it, without a guard
	open.Use(gin.Recovery())
	open.HandleMethodNotAllowed = true
	open.GET("/healthz", healthz)
	open.GET("/products", list)
	open.POST("/products", create)
	open.GET("/whoami", whoami)
	contract.TestReportOnly(t, routes, shopapi.HeadAsGet(open))
}
