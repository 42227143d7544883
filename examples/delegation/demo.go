package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	checkoutAPI = "https://checkout.api" // the service's own API, which users call
	ordersAPI   = "https://orders.api"   // this API
)

// demo runs the API with an issuer of its own and prints what each caller gets. An
// answer with another status than expected is an error.
func demo(ctx context.Context, out io.Writer) error {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer issuer.Close()
	checkout, other := issuer.AddApp("checkout"), issuer.AddApp("other")
	if err := exchangeTokens(issuer, checkout, other); err != nil {
		return err
	}
	guard, err := m2mauth.New(m2mauth.Config{Issuer: issuer.URL(), Audience: ordersAPI, Logger: slog.New(slog.DiscardHandler)}) // the table says why
	if err != nil {
		return err
	}
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(guard, checkout.ID, "shopagent"), ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) // until Close
	defer server.Close()

	// signedIn is a user's token, as the app in which the user signed in gets it.
	signedIn := func(audience, user string) string {
		return issuer.Sign(m2mauthtest.Token{AppID: "webapp", Audience: audience, Scopes: []string{"read:orders", "write:orders"}, Claims: map[string]any{"sub": user}})
	}
	// delegated is what a service gets for it.
	delegated := func(app m2mauthtest.App, actor string) string {
		if actor != "" {
			actor = signedIn(checkoutAPI, actor)
		}
		token, failed := exchange(ctx, issuer.TokenURL(), app.ID, app.Secret, signedIn(checkoutAPI, "alice"), actor, ordersAPI, "read:orders write:orders")
		if failed != nil {
			err = failed
		}
		return token
	}

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tTOKEN\tCALL\tANSWER\tWHY")
	unexpected := 0
	for _, call := range []struct {
		who, of, token, method string
		status                 int
		why                    string
	}{
		{"checkout", "alice's, exchanged", delegated(checkout, ""), "GET", 200, "the service, for a user"},
		{"checkout", "alice's, as it came", signedIn(checkoutAPI, "alice"), "GET", 401, "it is for the service, not for this API"},
		{"checkout", "its own", issuer.Sign(m2mauthtest.Token{AppID: checkout.ID, Audience: ordersAPI, Scopes: []string{"read:orders"}}), "GET", 403, "for no user"},
		{"other", "alice's, exchanged", delegated(other, ""), "GET", 403, "another service"},
		{"webapp", "alice's", signedIn(ordersAPI, "alice"), "GET", 403, "no service: alice signed in there"},
		{"checkout", "alice's, exchanged", delegated(checkout, ""), "POST", 403, "nobody acts for her"},
		{"checkout", "alice's, shopagent acts", delegated(checkout, "shopagent"), "POST", 201, "the agent, for a user, by the service"},
		{"checkout", "alice's, bob acts", delegated(checkout, "bob"), "POST", 403, "bob is not the agent"},
		{"other", "alice's, shopagent acts", delegated(other, "shopagent"), "POST", 403, "the agent, but another service"},
	} {
		if err != nil {
			return err
		}
		status, err := send(ctx, call.method, "http://"+listener.Addr().String()+"/orders", call.token)
		if err != nil {
			return err
		}
		if status != call.status {
			unexpected++
			call.why = fmt.Sprintf("NOT EXPECTED: should be %d, since %s", call.status, call.why)
		}
		fmt.Fprintf(table, "%s\t%s\t%s /orders\t%d\t%s\n", call.who, call.of, call.method, status, call.why)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d answers are not the expected ones", unexpected)
	}
	return nil
}

// exchangeTokens has the issuer exchange users' tokens for the apps, as Logto does where
// an app may: sub stays, client_id is the app, and act is there only with an actor's
// token. Here every user has every scope.
func exchangeTokens(issuer *m2mauthtest.Issuer, apps ...m2mauthtest.App) error {
	users, err := m2mauth.New(m2mauth.Config{Issuer: issuer.URL(), Audience: checkoutAPI, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	secrets := make(map[string]string)
	for _, app := range apps {
		secrets[app.ID] = app.Secret
	}
	tokenURL, err := url.Parse(issuer.TokenURL())
	if err != nil {
		return err
	}
	issuer.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != tokenURL.Path {
				next.ServeHTTP(w, r)
				return
			}
			app, secret, _ := r.BasicAuth()
			subject, err := users.Verify(r.Context(), r.PostFormValue("subject_token"))
			if err != nil || secret == "" || secret != secrets[app] {
				shopapi.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
				return
			}
			claims := map[string]any{"sub": subject.Subject()}
			if token := r.PostFormValue("actor_token"); token != "" {
				actor, err := users.Verify(r.Context(), token)
				if err != nil {
					shopapi.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
					return
				}
				claims["act"] = map[string]string{"sub": actor.Subject()}
			}
			shopapi.WriteJSON(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": issuer.Sign(m2mauthtest.Token{
				AppID: app, Audience: r.PostFormValue("resource"), Scopes: strings.Fields(r.PostFormValue("scope")), Claims: claims,
			})})
		})
	})
	return nil
}

func send(ctx context.Context, method, url, token string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
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
