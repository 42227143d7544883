// Command organizations is an HTTP API for many customers, each an organization
// of the issuer's, in the three ways that Logto has for it. To see it at work, with
// an issuer of its own and apps that call it:
//
//	go run ./examples/organizations -demo
//
// With your Logto:
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=https://shopping.api go run ./examples/organizations
//
//	GET /healthz               everybody
//	GET /products              tokens for the API, of no organization, with read:products
//	GET /orgs/{org}/products   tokens for the API, of that organization, with read:products
//	GET /orgs/{org}/invoices   organization tokens of that organization, with read:invoices
//
// Clients ask for these tokens with the parameter resource, with resource and
// organization_id, and with organization_id alone.
//
// Environment:
//
//	ISSUER            the issuer of the tokens, as its discovery document names it
//	AUDIENCE          this API's resource indicator, as registered at the issuer
//	ADDR              the address to listen on; default 127.0.0.1:8080
//	JWKS_URL          where the issuer's keys are; default: found by discovery
//	PLAIN_HTTP_HOSTS  hosts that may be asked for keys over http, comma-separated;
//	                  loopback always may
//
// And all settings that [m2mauth.ConfigFromEnv] reads, such as M2MAUTH_ISSUER, which
// goes before ISSUER, and M2MAUTH_INSECURE_HTTP_HOSTS, before PLAIN_HTTP_HOSTS.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	show := flag.Bool("demo", false, "run with an issuer of its own, and print what each caller gets")
	flag.Parse()
	err := error(nil)
	if *show {
		err = demo(context.Background(), os.Stdout)
	} else {
		err = run(context.Background(), os.Getenv)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "organizations: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	api, organizations, err := newGuards(config)
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, api, organizations)
	return shopapi.Serve(ctx, listener, routes(api, organizations))
}

// newGuards makes two guards. A token is for this API, or for an organization as
// such, and neither kind may pass for the other: their scopes mean different
// things.
func newGuards(config m2mauth.Config) (api, organizations *m2mauth.Guard, err error) {
	if api, err = m2mauth.New(config); err != nil {
		return nil, nil, err
	}
	config.Audience = "urn:logto:organization:" // what the audience of each organization begins with
	if organizations, err = m2mauth.New(config); err != nil {
		return nil, nil, err
	}
	return api, organizations, nil
}

func routes(api, organizations *m2mauth.Guard) http.Handler {
	theirs := m2mauth.OrganizationPath("org") // the token's organization is the one in the path

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /products", api.Require("read:products")(http.HandlerFunc(products)))
	mux.Handle("GET /orgs/{org}/products",
		api.RequireRule(m2mauth.AllOf(theirs, m2mauth.AllScopes("read:products")))(http.HandlerFunc(products)))
	mux.Handle("GET /orgs/{org}/invoices",
		organizations.RequireRule(m2mauth.AllOf(theirs, m2mauth.AllScopes("read:invoices")))(http.HandlerFunc(invoices)))
	return mux
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// listing is what all but /healthz answer.
type listing struct {
	Organization string            `json:"organization,omitempty"`
	Products     []shopapi.Product `json:"products,omitempty"`
	Invoices     []int             `json:"invoices,omitempty"`
}

func products(w http.ResponseWriter, r *http.Request) {
	shopapi.WriteJSON(w, http.StatusOK, listing{Organization: organizationOf(r), Products: shopapi.Products()})
}

func invoices(w http.ResponseWriter, r *http.Request) {
	shopapi.WriteJSON(w, http.StatusOK, listing{Organization: organizationOf(r), Invoices: []int{1, 2}})
}

func organizationOf(r *http.Request) string {
	claims, _ := m2mauth.FromContext(r.Context())
	slog.InfoContext(r.Context(), r.Pattern, "app", claims.AppID(), "organization", claims.OrganizationID())
	return claims.OrganizationID()
}
