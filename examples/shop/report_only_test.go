package main

import (
	"net/http"
	"testing"

	"github.com/m2mauth/m2mauth/examples/internal/contract"
)

func TestReportOnly(t *testing.T) {
	t.Parallel()
	open := http.NewServeMux() // as routes makes it, without a guard
	open.HandleFunc("GET /healthz", healthz)
	open.HandleFunc("GET /products", list)
	open.HandleFunc("POST /products", create)
	open.HandleFunc("GET /whoami", whoami)
	contract.TestReportOnly(t, routes, open)
}
