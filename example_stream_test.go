package m2mauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// streamLeeway is the Config.Leeway of a guard whose answers go on.
const streamLeeway = 30 * time.Second

// whileValid is for answers that go on, such as server-sent events. Their context
// ends, with ErrExpired as its cause, when the guard would no longer accept the
// token. That is exp and the leeway: at exp alone, the answer to a token that was
// accepted within the leeway would end before it began.
func whileValid(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := m2mauth.FromContext(r.Context())
		end := claims.ExpiresAt().Add(streamLeeway)
		ctx, cancel := context.WithDeadlineCause(r.Context(), end, m2mauth.ErrExpired)
		defer cancel()

		// The server's WriteTimeout would end the answer sooner, and no context ends
		// the write to a caller that does not read.
		_ = http.NewResponseController(w).SetWriteDeadline(end.Add(time.Second))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// events sends what comes from the feed until there is no more, or the context ends.
func events(feed <-chan string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		connection := http.NewResponseController(w)
		_ = connection.Flush() // the caller waits for the status, the feed may be silent
		for r.Context().Err() == nil {
			select {
			case event, more := <-feed:
				if !more {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", event)
			case <-r.Context().Done():
			}
			_ = connection.Flush()
		}
		if errors.Is(context.Cause(r.Context()), m2mauth.ErrExpired) { // otherwise the caller has gone
			io.WriteString(w, "event: expired\ndata: call again with a new token\n\n")
		}
	})
}

// Server-sent events that end when the token expires. A guard decides when a request
// arrives. It does not end a response that continues after the token has expired.
func ExampleClaims_ExpiresAt() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Leeway = streamLeeway
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	feed := make(chan string, 2)
	mux := http.NewServeMux()
	mux.Handle("GET /prices", guard.Require("read:prices")(whileValid(events(feed))))

	feed <- "kettle 29.90"
	feed <- "kettle 24.90"
	close(feed)
	r := httptest.NewRequest("GET", "/prices", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:prices"))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output:
	// data: kettle 29.90
	//
	// data: kettle 24.90
}

// A conversation is what goes on after a request was let through, such as a
// WebSocket: its caller may send a new token before the one in use ends.
type conversation struct {
	context.Context // ends with the token, and ErrExpired as its cause

	guard *m2mauth.Guard
	rule  m2mauth.Rule
	begun *http.Request
	who   m2mauth.Claims
	timer *time.Timer
}

func converse(guard *m2mauth.Guard, rule m2mauth.Rule, r *http.Request) (*conversation, error) {
	claims, err := guard.Check(r, rule)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancelCause(m2mauth.NewContext(r.Context(), claims))
	timer := time.AfterFunc(lasts(claims), func() { end(m2mauth.ErrExpired) })
	return &conversation{ctx, guard, rule, r, claims, timer}, nil
}

func lasts(claims m2mauth.Claims) time.Duration {
	return time.Until(claims.ExpiresAt().Add(streamLeeway))
}

// renew takes a token that came as a message. It must pass what the first one
// passed, and be the same caller's; after an error, close the connection.
func (c *conversation) renew(token string) error {
	r := c.begun.Clone(c)
	r.Header.Set("Authorization", "Bearer "+token)
	claims, err := c.guard.Check(r, c.rule)
	if err != nil {
		return err
	}
	if claims.Issuer() != c.who.Issuer() || claims.Subject() != c.who.Subject() ||
		claims.ClientID() != c.who.ClientID() || claims.OrganizationID() != c.who.OrganizationID() {
		return errors.New("the new token is another caller's")
	}
	c.timer.Reset(lasts(claims)) // a context that has ended stays so
	return nil
}

// A connection on which the caller sends new tokens as messages, such as a WebSocket.
// Check lets the request through before the upgrade. The connection's context ends when
// the latest token expires.
func ExampleGuard_Check_renewed() {
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://shopping.api")
	config.Leeway = streamLeeway
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/prices", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:prices"))

	c, err := converse(guard, m2mauth.AllScopes("read:prices"), r)
	if err != nil {
		log.Fatal(err) // with a ResponseWriter: guard.WriteError(w, r, err)
	}
	fmt.Println(c.renew(issuer.Token("https://shopping.api", "read:prices")))
	fmt.Println(errors.Is(c.renew(issuer.Token("https://shopping.api")), m2mauth.ErrScope))
	fmt.Println(c.renew(issuer.Sign(m2mauthtest.Token{AppID: "another", Audience: "https://shopping.api", Scopes: []string{"read:prices"}})))
	// Output:
	// <nil>
	// true
	// the new token is another caller's
}
