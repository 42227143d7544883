package openapiauth_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/m2mauth/m2mauth/adapters/openapiauth"
)

// FuzzRules looks for documents that make the reader panic, and for those of which it
// makes a public row without the document saying so, or a row that needs no scope.
func FuzzRules(f *testing.F) {
	f.Add(operation(`[{oauth: [read]}]`))
	f.Add(operation(`[]`))
	f.Add(operation(``))
	f.Add(operation(`[{}, {oauth: [read]}, {key: []}]`))
	f.Add(document("paths: {/a: {get: {}}, /b/{x}/: {head: {security: []}}}\nsecurity: []"))
	f.Add(document("x-s: &s []\npaths: {/a: {get: {security: *s}}, /b: {get: {<<: {security: []}}}}\nsecurity: [{oauth: [read]}]"))
	f.Add([]byte(`{"openapi": "3.1.0", "paths": {"/a": {"$ref": "#/components/pathItems/i"}, "/b": {"$ref": "#/paths/~1c"}, "/c": {"get": {"security": []}}}, "components": {"pathItems": {"i": {"get": {"security": []}}}}}`))
	f.Add([]byte(`{"openapi": "3.0.3", "security": [], "paths": {"/a": {"get": {"security": [], "security": [{"o": ["r"]}]}}}}`))
	f.Add([]byte("openapi: 3.1.0\npaths: {/a/{x}: {parameters: [{$ref: '#/components/parameters/p'}], get: {security: []}}}\ncomponents: {parameters: {p: {name: x, in: path}}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := openapiauth.Rules(data, options{})
		if err != nil {
			require.Nil(t, table)
			return
		}
		document := plain(data)
		mux := http.NewServeMux()
		for _, row := range table.Rows() {
			if row.Public {
				require.True(t, isOpen(document, row), "%s is public", row.Pattern())
			} else {
				require.Contains(t, row.Rule.String(), "AllScopes(", row.Pattern())
				require.NotContains(t, row.Rule.String(), "AnyToken", row.Pattern())
				require.False(t, row.Rule.IsOptional(), row.Pattern())
			}
			func() {
				defer func() { // of two patterns of which neither is the more literal, which may have one rule
					if v := recover(); v != nil {
						require.Contains(t, v, "conflicts with pattern", row.Pattern())
					}
				}()
				mux.Handle(row.Pattern(), http.NotFoundHandler())
			}()
		}
	})
}

// plain reads a document as anybody would.
func plain(data []byte) map[string]any {
	var document map[string]any
	if json.Unmarshal(data, &document) == nil {
		return document
	}
	document = nil
	_ = yaml.Load(data, &document)
	return document
}

// isOpen reports whether a document says of an operation that it is public.
func isOpen(document map[string]any, row openapiauth.Row) bool {
	at := func(value any, names ...string) any {
		for _, name := range names {
			object, _ := value.(map[string]any)
			value = object[name]
		}
		return value
	}
	isEmpty := func(value any) bool {
		list, ok := value.([]any)
		return ok && len(list) == 0
	}
	items, _ := at(document, "paths").(map[string]any)
	for path, item := range items {
		if row.Path != rename(path) {
			continue
		}
		if ref, ok := at(item, "$ref").(string); ok {
			ref, _ = url.PathUnescape(strings.TrimPrefix(ref, "#/"))
			var names []string
			for name := range strings.SplitSeq(ref, "/") {
				names = append(names, strings.NewReplacer("~1", "/", "~0", "~").Replace(name))
			}
			item = at(document, names...)
		}
		operation, _ := at(item, strings.ToLower(row.Method)).(map[string]any)
		if own, has := operation["security"]; has && isEmpty(own) || !has && isEmpty(document["security"]) {
			return true
		}
	}
	return false
}

// rename writes a path as a row does.
func rename(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "{") {
			parts[i] = strings.NewReplacer("-", "_", ".", "_").Replace(part)
		}
	}
	return strings.Join(slices.Clone(parts), "/")
}
