package revocation_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// A secret has leaked: its client is blocked until it has a new one.
func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: your Logto tenant
	list, err := revocation.New(revocation.Options{
		MaxTokenLifetime: time.Hour,
		Issuers:          []string{issuer.URL()},
	})
	if err != nil {
		panic(err)
	}
	config := issuer.Config("https://shopping.api")
	config.MaxLifetime = time.Hour
	config.Revoked = list.Revoked
	guard, err := m2mauth.New(config)
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	token := issuer.Sign(m2mauthtest.Token{AppID: "reporting", Audience: "https://shopping.api"})
	_, err = guard.Verify(ctx, token)
	fmt.Println(err)

	entry, err := list.Revoke(ctx, revocation.Entry{Client: "reporting", By: "alice", Reason: "its secret is on a public page"})
	if err != nil {
		panic(err)
	}
	_, err = guard.Verify(ctx, token)
	fmt.Println(err)

	// Once the secret is another one, old tokens are blocked alone, and new ones pass.
	_, err = list.Revoke(ctx, revocation.Entry{Client: "reporting", Before: time.Now(), By: "alice"})
	if err != nil {
		panic(err)
	}
	if err := list.Undo(ctx, entry.ID, "alice", "it has a new secret"); err != nil {
		panic(err)
	}
	_, err = guard.Verify(ctx, token)
	fmt.Println(err)
	// Output:
	// <nil>
	// m2mauth: token revoked: the token has been revoked
	// m2mauth: token revoked: the token has been revoked
}

// The admin API is under a rule of your guard, and the probe asks the list.
func ExampleList_Handler() {
	issuer := m2mauthtest.NewIssuer()
	var store revocation.Store = new(logstore.Log).Connect(0) // in production: redisstore.New
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Issuers: []string{issuer.URL()}, Store: store})
	if err != nil {
		panic(err)
	}
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = list.Run(ctx) }()

	mux := http.NewServeMux()
	admin := list.Handler(guard, m2mauth.AllScopes("revoke:tokens"))
	mux.Handle("/revocations/", http.StripPrefix("/revocations", admin))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if err := list.Ready(r.Context()); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
}
