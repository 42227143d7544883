package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const resource = "https://shopping.api"

// demo runs the API with an issuer of its own and prints what each caller gets. An
// answer with another status than expected is an error.
func demo(ctx context.Context, out io.Writer) error {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer issuer.Close()
	shop, partner := register(issuer)

	// The table says why requests are refused; the log need not.
	api, organizations, err := newGuards(m2mauth.Config{Issuer: issuer.URL(), Audience: resource, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(api, organizations), ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) // until Close
	defer server.Close()

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tTOKEN\tCALL\tANSWER\tWHY")
	unexpected := 0
	for _, call := range []struct {
		app                    m2mauthtest.App
		resource, organization string // of the token
		path                   string
		status                 int
		why                    string
	}{
		{shop, resource, "", "/products", 200, "its role grants read:products"},
		{shop, resource, "", "/orgs/acme/products", 403, "the token is of no organization"},
		{shop, resource, "", "/orgs/acme/invoices", 401, "the token is for the API, not for an organization"},
		{partner, resource, "", "/products", 403, "its role counts in acme only"},
		{partner, resource, "acme", "/orgs/acme/products", 200, "its role in acme grants read:products"},
		{partner, resource, "acme", "/orgs/globex/products", 403, "the token is of acme"},
		{partner, resource, "acme", "/products", 403, "a role in one organization is none for all"},
		{partner, resource, "globex", "/orgs/globex/products", 403, "in globex it has no role"},
		{partner, "", "acme", "/orgs/acme/invoices", 200, "its role in acme grants read:invoices"},
		{partner, "", "acme", "/orgs/globex/invoices", 403, "the token is of acme"},
		{partner, "", "globex", "/orgs/globex/invoices", 403, "in globex it has no role"},
		{partner, "", "acme", "/orgs/acme/products", 401, "the token is for an organization, not for the API"},
		{partner, "urn:logto:resource:organizations", "", "/orgs/acme/invoices", 401, "the issuer gives that audience to every app"},
	} {
		token, err := getToken(ctx, issuer.TokenURL(), call.app, call.resource, call.organization)
		if err != nil {
			return err
		}
		status, err := send(ctx, "http://"+listener.Addr().String()+call.path, token)
		if err != nil {
			return err
		}
		if status != call.status {
			unexpected++
			call.why = fmt.Sprintf("NOT EXPECTED: should be %d, since %s", call.status, call.why)
		}
		fmt.Fprintf(table, "%s\t%s\tGET %s\t%d\t%s\n", call.app.Name, describe(call.resource, call.organization), call.path, status, call.why)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d answers are not the expected ones", unexpected)
	}
	return nil
}

// register does at the issuer what you would do in Logto's console.
func register(issuer *m2mauthtest.Issuer) (shop, partner m2mauthtest.App) {
	issuer.AddResource(resource, "read:products")
	issuer.AddRole("reader", resource, "read:products")
	issuer.AddOrganizationRole("buyer", resource, "read:products")
	issuer.AddOrganizationRole("buyer", "", "read:invoices") // a permission of the organization itself
	issuer.AddOrganization("acme")
	issuer.AddOrganization("globex")
	shop = issuer.AddApp("shop", "reader")
	partner = issuer.AddApp("partner")
	issuer.AddToOrganization("acme", partner.ID, "buyer")
	issuer.AddToOrganization("globex", partner.ID)
	return shop, partner
}

// getToken gets an access token, of any of the three kinds.
func getToken(ctx context.Context, tokenURL string, app m2mauthtest.App, resource, organization string) (string, error) {
	parameters := url.Values{}
	if resource != "" {
		parameters.Set("resource", resource)
	}
	if organization != "" {
		parameters.Set("organization_id", organization)
	}
	config := clientcredentials.Config{
		ClientID:       app.ID,
		ClientSecret:   app.Secret,
		TokenURL:       tokenURL,
		Scopes:         []string{"read:products", "read:invoices"}, // those not granted are left out of the token
		EndpointParams: parameters,
	}
	token, err := config.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get a token for the app %s: %w", app.Name, err)
	}
	return token.AccessToken, nil
}

func send(ctx context.Context, url, token string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func describe(resource, organization string) string {
	switch {
	case organization == "":
		return "for " + resource
	case resource == "":
		return "of " + organization
	}
	return "for " + resource + " in " + organization
}
