package openapiauth_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/openapiauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const audience = "https://shopping.api"

func newGuard(t testing.TB) (*m2mauthtest.Issuer, *m2mauth.Guard) {
	t.Helper()
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config(audience)
	config.Logger = slog.New(slog.DiscardHandler)
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	return issuer, guard
}

// The model reads requirements as OpenAPI says, without rules: a list of alternatives,
// each a set of schemes with their scopes.
type (
	modelScheme struct {
		kind   string // a key of modelKinds
		scopes []string
	}
	modelAlternative map[string]modelScheme
	modelOperation   struct {
		method, path string
		none         bool // it has no security
		alternatives []modelAlternative
		lists        map[string]bool // of Options that name it
	}
)

// modelKinds are the schemes of the model's documents.
var modelKinds = map[string]any{
	"oauth": map[string]any{"type": "oauth2", "flows": map[string]any{"clientCredentials": map[string]any{
		"tokenUrl": "https://issuer.example/token", "scopes": map[string]any{"a": "", "b": "", "c": ""}}}},
	"oidc":   map[string]any{"type": "openIdConnect", "openIdConnectUrl": "https://issuer.example"},
	"bearer": map[string]any{"type": "http", "scheme": "bearer"},
	"key":    map[string]any{"type": "apiKey", "in": "header", "name": "X-Key"},
}

// allows reports whether a token's scopes meet a scheme, as far as a token can.
func (s modelScheme) allows(token []string) bool {
	if s.kind == "key" {
		return true // checked elsewhere
	}
	return !slices.ContainsFunc(s.scopes, func(scope string) bool { return !slices.Contains(token, scope) })
}

// asks reports whether a scheme asks for a token.
func (s modelScheme) asks() bool { return s.kind != "key" }

// allows decides about a request. token is nil for one without credentials.
func (op *modelOperation) allows(token []string) bool {
	if op.none || len(op.alternatives) == 0 {
		return true
	}
	asks := false
	for _, alternative := range op.alternatives {
		for _, s := range alternative {
			asks = asks || s.asks()
		}
	}
	if !asks {
		return true
	}
	for _, alternative := range op.alternatives {
		asks, met := false, true
		for _, s := range alternative {
			asks, met = asks || s.asks(), met && s.allows(token)
		}
		if token == nil && !asks || token != nil && asks && met { // a token that comes along must be good for something
			return true
		}
	}
	return false
}

// needs returns the lists of Options that must name the operation.
func (op *modelOperation) needs() map[string]bool {
	needs := make(map[string]bool)
	if op.none {
		needs["public"] = true
	}
	onlyEmpty := true
	for _, alternative := range op.alternatives {
		onlyEmpty = onlyEmpty && len(alternative) == 0
	}
	for _, alternative := range op.alternatives {
		switch {
		case len(alternative) > 0:
		case onlyEmpty:
			needs["public"] = true
		default:
			needs["optional"] = true
		}
		for _, s := range alternative {
			if s.kind == "key" {
				needs["elsewhere"] = true
			} else if len(s.scopes) == 0 {
				needs["any"] = true
			}
		}
	}
	return needs
}

// modelDocument is a random document, with the Options that it needs, or nearly.
type modelDocument struct {
	operations []*modelOperation
	wrong      bool // Options lack or have too much
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func newModel(r *rand.Rand) *modelDocument {
	d := new(modelDocument)
	for i := range 1 + r.IntN(6) {
		op := &modelOperation{
			method: pick(r, "get", "post", "put", "delete", "patch", "options", "trace"),
			path:   pick(r, "/p%d", "/p%d/", "/p%d/{id}", "/w/{x}/p%d/q", "/p%d/{a}/{b-c}/"),
			none:   r.IntN(8) == 0,
		}
		op.path = fmt.Sprintf(op.path, i)
		if !op.none {
			for range pick(r, 0, 1, 1, 1, 2, 2, 3) {
				alternative := modelAlternative{}
				for range pick(r, 0, 1, 1, 1, 1, 2, 2) {
					s := modelScheme{kind: pick(r, "oauth", "oauth", "oauth", "oauth", "oauth", "oauth", "oidc", "oidc", "oidc", "bearer", "key")}
					if s.kind == "oauth" || s.kind == "oidc" {
						for range pick(r, 0, 1, 1, 1, 1, 2, 2) {
							s.scopes = append(s.scopes, pick(r, "a", "b", "c"))
						}
					}
					alternative[s.kind] = s
				}
				op.alternatives = append(op.alternatives, alternative)
			}
		}
		op.lists = op.needs()
		if r.IntN(20) == 0 {
			list := pick(r, "public", "optional", "any", "elsewhere")
			op.lists[list] = !op.lists[list]
			d.wrong = true
		}
		d.operations = append(d.operations, op)
	}
	return d
}

func (d *modelDocument) options(r *rand.Rand) (o openapiauth.Options) {
	for i, op := range d.operations {
		name := pick(r, fmt.Sprintf("op%d", i), strings.ToUpper(op.method)+" "+op.path)
		for list, names := range map[string]*[]string{"public": &o.Public, "optional": &o.Optional, "any": &o.AnyToken, "elsewhere": &o.Elsewhere} {
			if op.lists[list] {
				*names = append(*names, name)
			}
		}
	}
	o.BasePath = pick(r, "", "/v1")
	return o
}

// text writes the document: as JSON or YAML, of 3.0 or 3.1, with or without a default that
// its operations share.
func (d *modelDocument) text(t *testing.T, r *rand.Rand) []byte {
	t.Helper()
	document := map[string]any{"openapi": pick(r, "3.0.3", "3.1.0"), "info": map[string]any{"title": "Test", "version": "1"},
		"components": map[string]any{"securitySchemes": modelKinds}}
	items := make(map[string]any)
	var shared any
	if !slices.ContainsFunc(d.operations, func(op *modelOperation) bool { return op.none }) && r.IntN(2) == 0 {
		shared = security(d.operations[0].alternatives)
		document["security"] = shared
	}
	for i, op := range d.operations {
		written := map[string]any{"operationId": fmt.Sprintf("op%d", i), "responses": map[string]any{}}
		if !op.none {
			if own := security(op.alternatives); shared == nil || !assert.ObjectsAreEqual(shared, own) {
				written["security"] = own
			}
		}
		items[op.path] = map[string]any{op.method: written}
	}
	document["paths"] = items
	if r.IntN(2) == 0 {
		text, err := json.Marshal(document)
		require.NoError(t, err)
		return text
	}
	text, err := yaml.Dump(document)
	require.NoError(t, err)
	return text
}

func security(alternatives []modelAlternative) []map[string][]string {
	list := []map[string][]string{}
	for _, alternative := range alternatives {
		schemes := map[string][]string{}
		for name, s := range alternative {
			schemes[name] = append([]string{}, s.scopes...)
		}
		list = append(list, schemes)
	}
	return list
}

// Rules of random documents decide, on a real guard and a real mux, as the model does.
func TestRulesDecideAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	issuer, guard := newGuard(t)
	tokens := map[string]string{}
	subsets := [][]string{nil, {}, {"a"}, {"b"}, {"c"}, {"a", "b"}, {"a", "c"}, {"b", "c"}, {"a", "b", "c"}}
	for _, scopes := range subsets[1:] {
		tokens[strings.Join(scopes, " ")] = issuer.Token(audience, scopes...)
	}
	decided, refused, allowed := 0, 0, 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newModel(r)
		text, options := d.text(t, r), d.options(r)
		table, err := openapiauth.Rules(text, options)
		if d.wrong {
			require.Error(t, err, "seed %d: %s", seed, text)
			refused++
			continue
		}
		require.NoError(t, err, "seed %d: %s", seed, text)
		var mux openapiauth.Mux
		for _, row := range table.Rows() {
			mux.HandleFunc(row.Pattern(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		}
		handler, err := guard.Routes(&mux.ServeMux, table.Rules(), table.Public()...)
		require.NoError(t, err, "seed %d", seed)
		for _, op := range d.operations {
			target := options.BasePath + strings.NewReplacer("{id}", "1", "{x}", "2", "{a}", "3", "{b-c}", "4").Replace(op.path)
			for _, scopes := range subsets {
				request := httptest.NewRequest(strings.ToUpper(op.method), target, nil)
				if scopes != nil {
					request.Header.Set("Authorization", "Bearer "+tokens[strings.Join(scopes, " ")])
				}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, request)
				want := op.allows(scopes)
				require.Equal(t, want, w.Code == http.StatusNoContent, "seed %d: %s %s with %q: %d\n%s", seed, op.method, target, scopes, w.Code, text)
				if decided++; want {
					allowed++
				}
			}
		}
	}
	require.Greater(t, decided, 5000)
	require.Greater(t, allowed, 1000)
	require.Greater(t, decided-allowed, 1000)
	require.Greater(t, refused, 20)
	t.Logf("%d decisions, %d of them to let through; %d documents refused", decided, allowed, refused)
}
