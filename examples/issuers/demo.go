package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"text/tabwriter"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const demoAudience = "https://shopping.api"

// demo calls the API with tokens of two issuers and of others, and prints what
// each got. An answer with another status than expected is an error.
func demo(ctx context.Context, out io.Writer) error {
	one, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer two.Close()
	guard, err := newGuard([]string{one.URL(), two.URL()}, m2mauth.Config{
		Audience: demoAudience,
		Logger:   slog.New(slog.DiscardHandler), // the table says what was refused
	})
	if err != nil {
		return err
	}
	api := routes(guard)

	forged := two.Sign(m2mauthtest.Token{Audience: demoAudience, Scopes: []string{"read:products"}, Claims: map[string]any{"iss": one.URL()}})
	slash := one.Sign(m2mauthtest.Token{Audience: demoAudience, Scopes: []string{"read:products"}, Claims: map[string]any{"iss": one.URL() + "/"}})
	stranger := one.Sign(m2mauthtest.Token{Audience: demoAudience, Scopes: []string{"read:products"}, Claims: map[string]any{"iss": "https://third.example/oidc"}})

	fmt.Fprintln(out, "An API takes tokens of two issuers. GET /products needs read:products:")
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tANSWER\tWHY")
	unexpected := 0
	for _, call := range []struct {
		who, token string
		status     int
		why        string
	}{
		{"app of issuer 1", one.Token(demoAudience, "read:products"), 200, "its issuer is one of the two"},
		{"app of issuer 2", two.Token(demoAudience, "read:products"), 200, "its issuer is the other"},
		{"app of issuer 2", two.Token(demoAudience), 403, "its token has no scope"},
		{"forger", forged, 401, "issuer 2 signed what says it is of issuer 1"},
		{"another name", slash, 401, "its issuer has a slash more than issuer 1"},
		{"stranger", stranger, 401, "nobody knows its issuer, which is not even asked"},
		{"app of issuer 2", "", 503, "issuer 2 has a new key, and is down"},
		{"app of issuer 1", one.Token(demoAudience, "read:products"), 200, "that is no matter of issuer 1"},
	} {
		if call.status == http.StatusServiceUnavailable {
			two.Rotate("ES384")
			two.Intercept(func(http.Handler) http.Handler { return http.NotFoundHandler() })
			call.token = two.Token(demoAudience, "read:products")
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/products", nil)
		r.Header.Set("Authorization", "Bearer "+call.token)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)

		why := call.why
		if w.Code != call.status {
			unexpected++
			why = fmt.Sprintf("NOT EXPECTED: should be %d, since %s", call.status, call.why)
		}
		fmt.Fprintf(table, "%s\t%d %s\t%s\n", call.who, w.Code, codeOf(w), why)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d answers are not the expected ones", unexpected)
	}
	return nil
}

// codeOf returns the error code of a refusal, or the text of another status.
func codeOf(w *httptest.ResponseRecorder) string {
	var refusal struct {
		Error string `json:"error"`
	}
	if w.Code < 400 || json.Unmarshal(w.Body.Bytes(), &refusal) != nil {
		return http.StatusText(w.Code)
	}
	return refusal.Error
}
