// Package bench compares m2mauth with other Go libraries that protect an API
// with JWT access tokens. Each is set up as its own README recommends.
//
//	go test -bench . ./bench    # the benchmarks
//	go run ./bench/report       # interleaved runs, REPORT.md and report.svg
package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/jwks"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/httprc/v3"
	jwk2 "github.com/lestrrat-go/jwx/v2/jwk"
	jwt2 "github.com/lestrrat-go/jwx/v2/jwt"
	jwk3 "github.com/lestrrat-go/jwx/v3/jwk"
	jwt3 "github.com/lestrrat-go/jwx/v3/jwt"
	"golang.org/x/time/rate"

	"github.com/m2mauth/m2mauth"
)

const (
	audience = "https://shopping.api"
	scope    = "read:products"
)

// Target is the issuer whose tokens a contender is to accept, for [audience].
type Target struct {
	Issuer, JWKS string // URLs
	Algorithm    string
	Client       *http.Client
	CacheBytes   int64 // m2mauth's; 0 is its default
}

// Contender is a way to protect a handler. None of the peers checks scopes, so
// that part is ours for them.
type Contender struct {
	Name   string
	Module string // whose version the report states
	// Protect returns the handler behind the check; ctx ends goroutines that
	// refresh keys.
	Protect func(ctx context.Context, t Target, next http.Handler) (http.Handler, error)
}

// Ours is the name of m2mauth among the [Contenders], and Floor the name of the
// signature check by itself, which is none.
const (
	Ours  = "m2mauth"
	Floor = "crypto/*"
)

// Contenders are m2mauth and its peers. All can do ES256, ES384, RS256 and EdDSA.
var Contenders = []Contender{
	{Ours, "github.com/m2mauth/m2mauth", protectM2MAuth},
	{"auth0", "github.com/auth0/go-jwt-middleware/v3", protectAuth0},
	{"go-oidc", "github.com/coreos/go-oidc/v3", protectOIDC},
	{"golang-jwt", "github.com/golang-jwt/jwt/v5", protectGolangJWT},
	{"keyfunc", "github.com/MicahParks/keyfunc/v3", protectKeyfunc},
	{"jwx v2", "github.com/lestrrat-go/jwx/v2", protectJWX2},
	{"jwx v3", "github.com/lestrrat-go/jwx/v3", protectJWX3},
}

func protectM2MAuth(_ context.Context, t Target, next http.Handler) (http.Handler, error) {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:     t.Issuer,
		Audience:   audience,
		HTTPClient: t.Client,
		CacheBytes: t.CacheBytes,
		Logger:     slog.New(slog.NewTextHandler(io.Discard, nil)), // writes, so that it costs
	})
	if err != nil {
		return nil, err
	}
	return guard.Require(scope)(next), nil
}

type auth0Claims struct {
	Scope string `json:"scope"`
}

func (*auth0Claims) Validate(context.Context) error { return nil }

func protectAuth0(_ context.Context, t Target, next http.Handler) (http.Handler, error) {
	issuer, err := url.Parse(t.Issuer)
	if err != nil {
		return nil, err
	}
	provider, err := jwks.NewCachingProvider(jwks.WithIssuerURL(issuer), jwks.WithCustomClient(t.Client))
	if err != nil {
		return nil, err
	}
	v, err := validator.New(
		validator.WithKeyFunc(provider.KeyFunc),
		validator.WithAlgorithm(validator.SignatureAlgorithm(t.Algorithm)),
		validator.WithIssuer(t.Issuer),
		validator.WithAudience(audience),
		validator.WithCustomClaims(func() *auth0Claims { return new(auth0Claims) }),
	)
	if err != nil {
		return nil, err
	}
	middleware, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v))
	if err != nil {
		return nil, err
	}
	return middleware.CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := jwtmiddleware.GetClaims[*validator.ValidatedClaims](r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		serveIfScoped(w, r, claims.CustomClaims.(*auth0Claims).Scope, next)
	})), nil
}

func protectOIDC(ctx context.Context, t Target, next http.Handler) (http.Handler, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, t.Client), t.Issuer)
	if err != nil {
		return nil, err
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: audience})
	return bearer(next, func(r *http.Request, token string) (string, error) {
		verified, err := verifier.Verify(r.Context(), token)
		if err != nil {
			return "", err
		}
		var claims struct {
			Scope string `json:"scope"`
		}
		err = verified.Claims(&claims)
		return claims.Scope, err
	}), nil
}

type golangJWTClaims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

func protectGolangJWT(_ context.Context, t Target, next http.Handler) (http.Handler, error) {
	set, err := keySet(t)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]any)
	for _, k := range set.Keys {
		keys[k.KeyID] = k.Key
	}
	find := func(token *jwt.Token) (any, error) {
		kid, _ := token.Header["kid"].(string)
		if key, ok := keys[kid]; ok {
			return key, nil
		}
		return nil, fmt.Errorf("unknown kid %q", kid)
	}
	return parseGolangJWT(t, next, find), nil
}

func parseGolangJWT(t Target, next http.Handler, find jwt.Keyfunc) http.Handler {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{t.Algorithm}), jwt.WithIssuer(t.Issuer),
		jwt.WithAudience(audience), jwt.WithExpirationRequired())
	return bearer(next, func(_ *http.Request, token string) (string, error) {
		var claims golangJWTClaims
		_, err := parser.ParseWithClaims(token, &claims, find)
		return claims.Scope, err
	})
}

// protectKeyfunc is keyfunc.NewDefaultCtx with another http.Client, which that
// does not take; the settings are its own.
func protectKeyfunc(ctx context.Context, t Target, next http.Handler) (http.Handler, error) {
	address, err := url.Parse(t.JWKS)
	if err != nil {
		return nil, err
	}
	keys, err := jwkset.NewStorageFromHTTP(address, jwkset.HTTPClientStorageOptions{
		Client: t.Client, Ctx: ctx, NoErrorReturnFirstHTTPReq: true, RefreshInterval: time.Hour,
	})
	if err != nil {
		return nil, err
	}
	client, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs: map[string]jwkset.Storage{t.JWKS: keys}, RateLimitWaitMax: time.Minute,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(5*time.Minute), 1),
	})
	if err != nil {
		return nil, err
	}
	k, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: client})
	if err != nil {
		return nil, err
	}
	return parseGolangJWT(t, next, k.Keyfunc), nil
}

func protectJWX2(ctx context.Context, t Target, next http.Handler) (http.Handler, error) {
	cache := jwk2.NewCache(ctx)
	if err := cache.Register(t.JWKS, jwk2.WithMinRefreshInterval(15*time.Minute), jwk2.WithHTTPClient(t.Client)); err != nil {
		return nil, err
	}
	if _, err := cache.Refresh(ctx, t.JWKS); err != nil {
		return nil, err
	}
	keys := jwk2.NewCachedSet(cache, t.JWKS)
	return bearer(next, func(_ *http.Request, token string) (string, error) {
		verified, err := jwt2.ParseString(token, jwt2.WithKeySet(keys), jwt2.WithIssuer(t.Issuer), jwt2.WithAudience(audience))
		if err != nil {
			return "", err
		}
		held, _ := verified.Get("scope")
		s, _ := held.(string)
		return s, nil
	}), nil
}

func protectJWX3(ctx context.Context, t Target, next http.Handler) (http.Handler, error) {
	cache, err := jwk3.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	if err := cache.Register(ctx, t.JWKS, jwk3.WithMinInterval(15*time.Minute), jwk3.WithHTTPClient(t.Client)); err != nil {
		return nil, err
	}
	keys, err := cache.CachedSet(t.JWKS)
	if err != nil {
		return nil, err
	}
	return bearer(next, func(_ *http.Request, token string) (string, error) {
		verified, err := jwt3.ParseString(token, jwt3.WithKeySet(keys), jwt3.WithIssuer(t.Issuer), jwt3.WithAudience(audience))
		if err != nil {
			return "", err
		}
		var held string
		_ = verified.Get("scope", &held) // fails if there is none
		return held, nil
	}), nil
}

// bearer is the middleware for libraries that have none.
func bearer(next http.Handler, verify func(*http.Request, string) (scope string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		held, err := verify(r, token)
		if err != nil {
			http.Error(w, "invalid token", http.StatusUnauthorized)
			return
		}
		serveIfScoped(w, r, held, next)
	})
}

func serveIfScoped(w http.ResponseWriter, r *http.Request, held string, next http.Handler) {
	if !slices.Contains(strings.Fields(held), scope) {
		http.Error(w, "insufficient scope", http.StatusForbidden)
		return
	}
	next.ServeHTTP(w, r)
}

// signatureCheck returns what any library must do at the least for a token: one
// hash of what is signed and one check, with everything else made ready.
func signatureCheck(public crypto.PublicKey, token string) func() bool {
	dot := strings.LastIndexByte(token, '.')
	input := []byte(token[:dot])
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil {
		panic(err) // a mistake of ours
	}
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		hash := crypto.SHA256
		if public.Params().BitSize == 384 {
			hash = crypto.SHA384
		}
		r := new(big.Int).SetBytes(signature[:len(signature)/2])
		s := new(big.Int).SetBytes(signature[len(signature)/2:])
		return func() bool { return ecdsa.Verify(public, digest(hash, input), r, s) }
	case *rsa.PublicKey:
		return func() bool {
			return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest(crypto.SHA256, input), signature) == nil
		}
	default:
		return func() bool { return ed25519.Verify(public.(ed25519.PublicKey), input, signature) }
	}
}

func digest(hash crypto.Hash, input []byte) []byte {
	h := hash.New()
	h.Write(input)
	return h.Sum(nil)
}
