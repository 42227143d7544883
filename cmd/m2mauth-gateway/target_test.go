package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTargetsThatCanBeReadInOneWayAreSplitAsSent(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"/":                           "",
		"/products":                   "products",
		"/products/":                  "products|",
		"/products?a=b&c=/../%2e":     "products",
		"/products?":                  "products",
		"/Products/A-b_c~d.e":         "Products|A-b_c~d.e",
		"/.well-known/x":              ".well-known|x",
		"/a%20b":                      "a%20b",
		"/caf%C3%A9":                  "caf%C3%A9",
		"/caf%c3%a9":                  "caf%c3%a9",
		"/a@b.com,c:d!$&'()*+=":       "a@b.com,c:d!$&'()*+=",
		"/a%40b.com":                  "a%40b.com",
		"/%E6%97%A5%E6%9C%AC/%7Bx%7D": "%E6%97%A5%E6%9C%AC|%7Bx%7D",
	} {
		segments, err := parseTarget(target)
		assert.NoError(t, err, target)
		assert.Equal(t, want, strings.Join(segments, "|"), target)
	}
}

// tricks are targets that two programs may read in two ways.
var tricks = map[string]string{
	"nothing":                         "",
	"asterisk":                        "*",
	"absolute form":                   "http://api.example.com/products",
	"no slash":                        "products",
	"two slashes first":               "//products",
	"two slashes":                     "/healthz//products",
	"two slashes at the end":          "/products//",
	"dot segment":                     "/./products",
	"dot dot segment":                 "/healthz/../products",
	"dot dot at the end":              "/products/..",
	"three dots":                      "/healthz/.../products",
	"encoded dot":                     "/healthz/%2e%2e/products",
	"encoded dot in upper case":       "/healthz/%2E./products",
	"encoded slash":                   "/healthz%2fproducts",
	"encoded slash in upper case":     "/healthz/..%2F..%2Fproducts",
	"encoded letter":                  "/%70roducts",
	"encoded digit":                   "/products/%31",
	"encoded dash":                    "/read%2Dme",
	"parameters":                      "/healthz;/products",
	"dot dot with parameters":         "/healthz/..;/products",
	"encoded semicolon":               "/healthz%3b/products",
	"backslash":                       `/healthz\..\products`,
	"encoded backslash":               "/healthz/..%5c..%5cproducts",
	"encoded NUL":                     "/products%00",
	"encoded line break":              "/products%0d%0aX-Auth-Subject:%20root",
	"encoded delete":                  "/products%7f",
	"encoded percent":                 "/healthz/%252e%252e/products",
	"encoded question mark":           "/healthz%3Fproducts",
	"encoded number sign":             "/healthz%23/products",
	"fragment":                        "/products#/healthz",
	"fragment in the query":           "/products?a#/healthz",
	"half an encoding":                "/products%2",
	"no encoding":                     "/products%zz",
	"encoding of IIS":                 "/healthz/%u002e%u002e/products",
	"overlong dot":                    "/healthz/%c0%ae%c0%ae/products",
	"overlong slash":                  "/healthz%c0%afproducts",
	"not UTF-8":                       "/products/%ff",
	"half a surrogate pair":           "/products/%ed%a0%80",
	"wide slash":                      "/healthz%EF%BC%8Fproducts",
	"wide dots":                       "/healthz/%EF%BC%8E%EF%BC%8E/products",
	"zero-width space":                "/products%E2%80%8B",
	"non-breaking space":              "/products%C2%A0",
	"right to left":                   "/%E2%80%AEproducts",
	"raw letter outside ASCII":        "/café",
	"space":                           "/products /healthz",
	"tab":                             "/products\t",
	"line break":                      "/products\r\n",
	"NUL":                             "/products\x00",
	"dot at the end":                  "/products.",
	"space at the end":                "/products%20",
	"space and dots at the end":       "/healthz/..%20/products",
	"space at the beginning":          "/%20products",
	"raw brace":                       "/products/{id}",
	"raw quote":                       `/products"`,
	"raw bracket":                     "/products[0]",
	"raw pipe":                        "/products|x",
	"letter outside ASCII in a query": "/products?q=é",
	"space in a query":                "/products?q= x",
}

func TestTargetsThatCanBeReadInTwoWaysAreRefused(t *testing.T) {
	t.Parallel()
	for name, target := range tricks {
		segments, err := parseTarget(target)
		assert.ErrorAs(t, err, new(ambiguous), "%s: %q", name, target)
		assert.Nil(t, segments, name)
	}
}

// Whatever is let through has one spelling: its characters, but for those that
// need an encoding, stand for themselves.
func FuzzTarget(f *testing.F) {
	for _, target := range tricks {
		f.Add(target)
	}
	f.Add("/products/caf%C3%A9?x=y")
	rules, err := parseTable("GET /a public\nGET /{b}/c any-token\nGET /{d...} scopes e")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		segments, err := parseTarget(target)
		if err != nil {
			return
		}
		path, _, _ := strings.Cut(target, "?")
		assert.Equal(t, path, "/"+strings.Join(segments, "/"), "nothing is normalised")
		for i, s := range segments {
			assert.True(t, s != "" || i == len(segments)-1)
			assert.NotContains(t, []string{".", ".."}, s)
			assert.NotContains(t, s, ";")
			for _, part := range []string{"%2e", "%2f", "%5c", "%00", "%25", "%3b"} {
				assert.NotContains(t, strings.ToLower(s), part)
			}
		}
		_, _ = rules.find("GET", segments) // does not panic
	})
}
