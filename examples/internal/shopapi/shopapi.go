// Package shopapi is what the example servers have in common and what has
// nothing to do with their framework: the data they answer with, and how a
// net/http server is started and stopped with care. What concerns m2mauth, the
// guard and the routes, stands in each server's main.go.
package shopapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/m2mauth/m2mauth"
)

// Product is an article of the shop.
type Product struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// Products returns all that the shop sells.
func Products() []Product {
	return []Product{{1, "Coffee grinder"}, {2, "Kettle"}}
}

// NewProduct returns what POST /products answers with. The shop keeps nothing
// and reads no body: the examples are about who may call.
func NewProduct() Product {
	return Product{3, "Teapot"}
}

// Identity is the answer to GET /whoami.
type Identity struct {
	AppID    string   `json:"app_id"` // empty for a user's token
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes"` // never null
}

// Identify says whose token the claims come from.
func Identify(claims m2mauth.Claims) Identity {
	return Identity{
		AppID:    claims.AppID(),
		ClientID: claims.ClientID(),
		Scopes:   slices.AppendSeq([]string{}, claims.Scopes().All()),
	}
}

// WriteJSON answers with v as JSON.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("write the answer", "error", err) // the caller has gone
	}
}

// HeadAsGet has HEAD answered as GET is, for routers that do not so by themselves
// as net/http's does. The server leaves the body out.
func HeadAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.Clone(r.Context())
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// ConfigFromEnv returns the settings of the environment as m2mauth reads them, with
// the examples' own short names beside: M2MAUTH_ISSUER, or ISSUER.
func ConfigFromEnv(getenv func(string) string) (m2mauth.Config, error) {
	config, err := m2mauth.ConfigFromEnv("M2MAUTH_")
	if err != nil {
		return config, err
	}
	config.Issuer = cmp.Or(config.Issuer, getenv("ISSUER"))
	config.Audience = cmp.Or(config.Audience, getenv("AUDIENCE"))
	config.JWKSURL = cmp.Or(config.JWKSURL, getenv("JWKS_URL"))
	if config.InsecureHTTPHosts == nil {
		config.InsecureHTTPHosts = SplitList(getenv("PLAIN_HTTP_HOSTS"))
	}
	return config, nil
}

// SplitList returns the parts of a comma-separated list, without blanks around
// them and without empty ones.
func SplitList(s string) []string {
	var parts []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// shutdownTimeout is how long requests under way may take after the signal.
const shutdownTimeout = 10 * time.Second

// WarmUp fetches the issuer's keys in the background, so that the first request need
// not wait for them, and logs the outcome. An issuer that is down delays nothing and
// ends nothing: the first request after it is back fetches the keys.
func WarmUp(ctx context.Context, guards ...*m2mauth.Guard) {
	for _, guard := range guards {
		if ctx.Err() != nil {
			return // the program ends before it has begun: nobody will ask
		}
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := guard.Warm(ctx); err != nil {
				slog.WarnContext(ctx, "the issuer's keys are not there yet; requests will ask for them", "error", err)
				return
			}
			slog.InfoContext(ctx, "the issuer's keys are there")
		}()
	}
}

// Serve answers requests on listener until ctx is done or the process gets
// SIGINT or SIGTERM. It then takes no new requests, lets those under way
// finish, and returns nil. A second signal ends the process at once.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	// The zero values of these mean no limit at all, so that a few slow clients
	// could hold every connection.
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // longer than a request may wait for the issuer's keys (m2mauth.Config.FetchTimeout)
		IdleTimeout:       2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	slog.Info("listening", "url", "http://"+listener.Addr().String())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop() // from here on a second signal has its usual effect

	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}
