// Package infront puts a guard in front of an API that checks tokens in its own way.
package infront

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/m2mauth/m2mauth"
)

// ReportOnly returns a guard that rejects nobody until a date, and logs what it would
// reject.
func ReportOnly(issuer, audience string, until time.Time) (*m2mauth.Guard, error) {
	return m2mauth.New(m2mauth.Config{
		Issuer:                  issuer,
		Audience:                audience,
		InsecureReportOnlyUntil: until,
		OnDecision: func(ctx context.Context, d m2mauth.Decision) {
			if d.ReportOnly && d.Err != nil {
				slog.InfoContext(ctx, "would be rejected", "rule", d.Rule, "client", d.Claims.ClientID(), "why", d.Err.Description)
			}
		},
	})
}

// InFront lets the guard see each request before the API does.
func InFront(guard *m2mauth.Guard, api http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(api))
	mux.Handle("POST /products", guard.Require("write:products")(api))
	mux.Handle("/", api) // all other paths and methods
	return mux
}
