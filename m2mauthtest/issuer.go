package m2mauthtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/m2mauth/m2mauth/m2mauthtest/internal/inmemory"
)

const (
	memoryOrigin = "https://issuer.test"

	issuerPath     = "/oidc"
	discoveryPath  = issuerPath + "/.well-known/openid-configuration"
	asMetadataPath = issuerPath + "/.well-known/oauth-authorization-server"
	jwksPath       = issuerPath + "/jwks"
	tokenPath      = issuerPath + "/token"
)

// Issuer is an OAuth 2.0 and OpenID Connect issuer for tests. It serves discovery,
// a key set (RFC 7517), and a token endpoint for the client credentials grant (RFC
// 6749 section 4.4) with resource indicators (RFC 8707). It responds as a Logto 1.42
// server does.
//
// Make one with [NewIssuer] or [ListenIssuer]. It starts with one ES384 key, and with
// no resources, roles or apps. An Issuer is safe for concurrent use.
//
// Methods that set the issuer up panic if a call makes no sense, such as an app with
// an undefined role. That is a mistake in the test, so there is no error to check.
type Issuer struct {
	origin string       // scheme and authority, no slash
	client *http.Client // how to reach the issuer
	close  func()       // what Close does; nil if nothing listens

	mu sync.Mutex // guards the fields below; never held while a hook runs or a response is written

	fetches Fetches
	handler http.Handler // serve, wrapped by Intercept; nil means serve itself

	keys   keyring
	tenant tenant
}

// Fetches counts the requests that an [Issuer] received, with any HTTP method.
type Fetches struct {
	Discovery int // either metadata document
	JWKS      int
	Token     int
}

// NewIssuer returns an issuer that lives in memory. It does not listen: only the
// client from [Issuer.Client] reaches it. Its identifier is https://issuer.test/oidc.
// There is nothing to close.
func NewIssuer() *Issuer {
	i := newIssuer(memoryOrigin)
	i.client = &http.Client{Transport: &inmemory.Transport{Origin: memoryOrigin, Handler: i}}
	return i
}

func newIssuer(origin string) *Issuer {
	return &Issuer{origin: origin, keys: newKeyring(newKey("ES384")), tenant: newTenant()}
}

// URL returns the issuer's identifier, which its tokens carry as iss. It ends in
// /oidc.
func (i *Issuer) URL() string { return i.origin + issuerPath }

// TokenURL returns the URL of the token endpoint.
func (i *Issuer) TokenURL() string { return i.origin + tokenPath }

// JWKSURL returns the URL of the key set.
func (i *Issuer) JWKSURL() string { return i.origin + jwksPath }

// Client returns an HTTP client that reaches the issuer. It has no timeout.
//
// For an issuer from [NewIssuer], the client calls the issuer's handler in memory and
// knows no other host. It streams responses: you can read a body that never ends, and
// the read fails when the request's context ends. It works in a bubble of
// [testing/synctest]. The context of the handler's request is canceled when the client
// gives up or closes the body.
//
// For an issuer from [ListenIssuer], the client uses the network, without a proxy.
func (i *Issuer) Client() *http.Client {
	c := *i.client
	return &c
}

// Fetches returns how many requests the issuer has received. A request counts when
// it arrives, before the hook of [Issuer.Intercept] sees it.
func (i *Issuer) Fetches() Fetches {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Intercept lets a hook handle all requests from now on. The handler that hook
// returns receives them, and next responds as the issuer would. Intercept calls the
// hook once, immediately. The handler may be called concurrently. Each call replaces
// the previous hook, and nil removes it.
//
//	issuer.Intercept(func(next http.Handler) http.Handler {
//		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
//		})
//	})
//
// To hang, a handler waits for the end of its request's context, so that its
// goroutine ends too. To break the connection, it panics with [http.ErrAbortHandler].
//
// A guard that has fetched the keys does not notice an outage: it uses them for
// Config.KeyTTL (10 minutes by default) and, while the issuer fails, for
// Config.KeyStaleFor (an hour) more. Only then does it respond with 503. To see 503 at
// once, use a new guard. Otherwise let the time pass in a bubble of
// [testing/synctest]:
//
//	time.Sleep(10*time.Minute + time.Hour) // KeyTTL + KeyStaleFor: 503 from now on
//	issuer.Intercept(nil)
//	time.Sleep(30 * time.Second) // until the guard tries again: 200
func (i *Issuer) Intercept(hook func(next http.Handler) http.Handler) {
	var handler http.Handler
	if hook != nil {
		handler = hook(http.HandlerFunc(i.serve))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handler = handler
}

// ServeHTTP counts the request and responds, through the hook of [Issuer.Intercept]
// if there is one.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.handlerFor(r.URL.Path).ServeHTTP(w, r)
}

func (i *Issuer) handlerFor(path string) http.Handler {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch path {
	case discoveryPath, asMetadataPath:
		i.fetches.Discovery++
	case jwksPath:
		i.fetches.JWKS++
	case tokenPath:
		i.fetches.Token++
	}
	if i.handler != nil {
		return i.handler
	}
	return http.HandlerFunc(i.serve)
}

// serve responds as the recorded server does, but without its headers for browser
// policies.
func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept-Encoding")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path := r.URL.Path; {
	case reads && (path == discoveryPath || path == asMetadataPath):
		i.serveDiscovery(w, r)
	case reads && path == jwksPath:
		i.serveJWKS(w, r)
	case r.Method == http.MethodPost && path == tokenPath:
		i.serveToken(w, r)
	case strings.HasPrefix(path, issuerPath+"/"):
		writeJSON(w, http.StatusNotFound, newOIDCError("invalid_request", fmt.Sprintf(
			"unrecognized route or not allowed method (%s on %s)", r.Method, strings.TrimPrefix(path, issuerPath))))
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("Not Found"))
	}
}

// allowOrigins lets scripts of all origins read the response.
func allowOrigins(h http.Header) {
	h.Set("Vary", "Accept-Encoding, Origin")
	h.Set("Access-Control-Allow-Origin", "*")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body := marshal(v)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// marshal encodes JSON as JavaScript does: it does not escape <, > and &. It panics
// if v cannot be encoded.
func marshal(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("m2mauthtest: " + err.Error())
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
