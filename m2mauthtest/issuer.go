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

// Issuer is an OAuth 2.0 and OpenID Connect issuer for tests. It serves
// discovery, a key set (RFC 7517) and a token endpoint for the client
// credentials grant (RFC 6749 section 4.4) with resource indicators (RFC 8707),
// and answers as a Logto 1.42 server does.
//
// Make one with [NewIssuer] or [ListenIssuer]. It starts with one ES384 key and
// without resources, roles and apps. An Issuer is safe for concurrent use.
//
// Methods that set the issuer up panic with a sentence when they are asked for
// what cannot be, such as an app with a role that nobody defined: that is a
// mistake in the test, which has nothing to check about it.
type Issuer struct {
	origin string       // scheme and authority, no slash
	client *http.Client // how to reach the issuer
	close  func()       // what Close does; nil if nothing listens

	mu sync.Mutex // guards the fields below; never held while a hook runs or an answer is written

	fetches Fetches
	handler http.Handler // what Intercept made of serve; nil means serve itself

	keys   keyring
	tenant tenant
}

// Fetches counts the requests that an [Issuer] received, of any method.
type Fetches struct {
	Discovery int // of either metadata document
	JWKS      int
	Token     int
}

// NewIssuer returns an issuer that lives in memory: nothing listens, and only
// the client from [Issuer.Client] reaches it. Its identifier is
// https://issuer.test/oidc. There is nothing to close.
func NewIssuer() *Issuer {
	i := newIssuer(memoryOrigin)
	i.client = &http.Client{Transport: &inmemory.Transport{Origin: memoryOrigin, Handler: i}}
	return i
}

func newIssuer(origin string) *Issuer {
	return &Issuer{origin: origin, keys: newKeyring(newKey("ES384")), tenant: newTenant()}
}

// URL returns the issuer identifier, which is also the iss claim of its tokens.
// It ends in /oidc.
func (i *Issuer) URL() string { return i.origin + issuerPath }

// TokenURL returns the URL of the token endpoint.
func (i *Issuer) TokenURL() string { return i.origin + tokenPath }

// JWKSURL returns the URL of the key set.
func (i *Issuer) JWKSURL() string { return i.origin + jwksPath }

// Client returns a client that reaches the issuer, without a timeout of its own.
//
// For an issuer from [NewIssuer] it calls the issuer's handler in memory, and
// every other host is unknown to it. Answers are streamed: the body of one that
// never ends can be read as it comes, and ends with an error when the request's
// context does. It works inside a bubble of [testing/synctest]. The context of
// the handler's request is canceled when the client gives up or closes the body.
//
// For an issuer from [ListenIssuer] it uses the network, without a proxy.
func (i *Issuer) Client() *http.Client {
	c := *i.client
	return &c
}

// Fetches returns the numbers of requests received so far. A request counts
// when it arrives, before the hook of [Issuer.Intercept] sees it.
func (i *Issuer) Fetches() Fetches {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Intercept wraps every answer from now on: the handler that hook returns gets
// the requests, and next is the issuer as it would have answered. The hook is
// called once, at once; what it returns serves many requests at a time. Each
// call replaces the hook before; nil takes it off.
//
//	issuer.Intercept(func(next http.Handler) http.Handler {
//		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
//		})
//	})
//
// A handler that should hang waits for the end of its request's context, so that
// its goroutine ends with the request. One that panics with
// [http.ErrAbortHandler] breaks the connection.
func (i *Issuer) Intercept(hook func(next http.Handler) http.Handler) {
	var handler http.Handler
	if hook != nil {
		handler = hook(http.HandlerFunc(i.serve))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handler = handler
}

// ServeHTTP counts the request, and has it answered through the hook of
// [Issuer.Intercept], if there is one.
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

// serve answers as the recorded server does, but without its headers about
// browsers' policies.
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

// allowOrigins lets scripts of all origins read the answer.
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

// marshal writes JSON as JavaScript does, with <, > and & as they are. It
// panics if v cannot be written.
func marshal(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("m2mauthtest: " + err.Error())
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
