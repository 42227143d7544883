package main

import (
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestContract(t *testing.T) {
	gin.SetMode(gin.TestMode)
	contract.Test(t, routes)
}
