package main

import (
	"bytes"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

func TestContract(t *testing.T) {
	gin.SetMode(gin.TestMode)
	contract.Test(t, routes)
}

func TestATokenInTheQueryIsNotLogged(t *testing.T) {
	gin.SetMode(gin.TestMode)
	var log bytes.Buffer
	stdout := gin.DefaultWriter
	gin.DefaultWriter = &log
	defer func() { gin.DefaultWriter = stdout }()
	guard, err := m2mauth.New(m2mauthtest.NewIssuer().Config("https://shopping.api"))
	require.NoError(t, err)
	routes(guard).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/products?access_token=secret", nil))
	assert.Contains(t, log.String(), "/products")
	assert.NotContains(t, log.String(), "secret")
}
