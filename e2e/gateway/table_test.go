//go:build unix

package gateway

import "strings"

// sent is a request of the table, which every proxy gets as it stands.
type sent struct {
	name           string
	method, target string
	fields         []string // {reader} stands for a token
	body           string
	version        string   // of HTTP/1; empty: 1.1
	h2             bool     // instead of HTTP/1: fields in lower case are as they stand
	chunked        bool     // the body
	trailers       []string // behind a body in chunks, or in HTTP/2
	expect         bool     // Expect: 100-continue, and no body before it is asked for

	passes verdict
	caller string // "public" or "reader", where the API sees it
}

// verdict says whether a request must reach the API.
type verdict int

const (
	never verdict = iota
	always
	// perhaps is for what some proxies repair, such as a field that they take away, and others
	// leave to the gateway. What reaches the API is checked as always.
	perhaps
)

const (
	bearer = "Authorization: {reader}"
	mega   = 10 << 20
)

// rows returns the table.
func rows() []sent {
	large := strings.Repeat("0123456789abcdef", mega/16)
	list := []sent{
		{name: "public", target: "/healthz", passes: always, caller: "public"},
		{name: "public, with a bad token", target: "/healthz", fields: []string{"Authorization: Bearer rubbish"}, passes: always, caller: "public"},
		{name: "public, with a token", target: "/healthz", fields: []string{bearer}, passes: always, caller: "public"},
		{name: "public, HTTP/1.0", target: "/healthz", version: "1.0", passes: always, caller: "public"},
		{name: "the scope", target: "/products?page=2", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "a query with encodings and dots", target: "/products?q=a%2fb&r=..//", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "HEAD", method: "HEAD", target: "/products", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "a wildcard", target: "/products/a%40b", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "letters and spaces encoded in lower case", target: "/files/caf%c3%a9%20x", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "several segments", target: "/files/a/b.txt", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "a field of the API's own", target: "/whoami", fields: []string{bearer, "X-Auth-Token: x"}, passes: always, caller: "reader"},
		{name: "absolute form", target: "http://api.example.com/products", fields: []string{bearer}, passes: always, caller: "reader"},
		{name: "absolute form of another host", target: "http://other.example.com/healthz", passes: perhaps, caller: "public"},
		{name: "absolute form with a trick", target: "http://api.example.com/healthz/..%2fproducts", fields: []string{bearer}},

		{name: "no token", target: "/products"},
		{name: "a bad token", target: "/products", fields: []string{bearer + "x"}},
		{name: "two tokens", target: "/products", fields: []string{bearer, bearer}},
		{name: "two tokens in two letter cases", target: "/products", fields: []string{"Authorization: Bearer x", "authorization: {reader}"}},
		{name: "a scope is missing", method: "DELETE", target: "/products/7", fields: []string{bearer}},
		{name: "no row", target: "/nothing", fields: []string{bearer}},
		{name: "no row for the method", method: "OPTIONS", target: "/products", fields: []string{bearer}},
		{name: "another letter case without a row", target: "/Products", fields: []string{bearer}},
		{name: "another letter case of a row with another demand", target: "/products/Export", fields: []string{bearer}},
		{name: "an extension behind it", target: "/products/export.json", fields: []string{bearer}},
		{name: "an accent in it", target: "/products/%c3%a9xport", fields: []string{bearer}},
		{name: "the gateway's own path", target: "/nginx", fields: []string{bearer}},
		{name: "the other one", target: "/forward-auth", fields: []string{bearer}},
		{name: "nginx's location for the gateway", target: "/_gateway", fields: []string{bearer}},
		{name: "a method in lower case", method: "get", target: "/healthz"},
		{name: "a method that is none", method: "GET,POST", target: "/healthz"},
		{name: "CONNECT", method: "CONNECT", target: "api.example.com:443", fields: []string{bearer}},
		{name: "CONNECT of a path", method: "CONNECT", target: "/products", fields: []string{bearer}},

		{name: "fields that tell of another request", target: "/products", fields: []string{
			"X-Original-URI: /healthz", "X-Original-Method: GET", "X-Forwarded-Uri: /healthz", "X-Forwarded-Method: GET"}},
		{name: "X-Forwarded-Uri of the caller", target: "/products", fields: []string{"X-Forwarded-Uri: /healthz", "X-Forwarded-Method: GET"}},
		{name: "X-Forwarded-Uri that the connection names", target: "/products", fields: []string{"X-Forwarded-Uri: /healthz", "Connection: X-Forwarded-Uri"}},
		{name: "a connection that names Authorization", target: "/products", fields: []string{bearer, "Connection: Authorization"}, passes: perhaps, caller: "reader"},
		{name: "a field that cannot be read", target: "/healthz", fields: []string{"X-Odd: a\x01b"}},

		{name: "two lengths", method: "POST", target: "/products", fields: []string{bearer, "Content-Length: 5", "Content-Length: 6"}},
		{name: "a length and chunks", method: "POST", target: "/products", fields: []string{bearer, "Content-Length: 3"}, body: "hello", chunked: true, passes: perhaps, caller: "reader"},
		{name: "chunks that are named oddly", method: "POST", target: "/products", fields: []string{bearer, "Transfer-Encoding: xchunked", "Content-Length: 5"}},
		{name: "a field that is folded", target: "/healthz", fields: []string{"X-Other: a\r\n b"}, passes: perhaps, caller: "public"},
		{name: "a space before the colon", target: "/healthz", fields: []string{"X-Auth-Subject : root"}, passes: perhaps, caller: "public"},

		{name: "a body", method: "POST", target: "/products", fields: []string{bearer}, body: `{"name":"Teapot"}`, passes: always, caller: "reader"},
		{name: "a body in chunks", method: "POST", target: "/products", fields: []string{bearer}, body: "hello", chunked: true, passes: always, caller: "reader"},
		{name: "a body of 10 MB", method: "POST", target: "/products", fields: []string{bearer}, body: large, passes: always, caller: "reader"},
		{name: "a body of 10 MB in chunks", method: "POST", target: "/products", fields: []string{bearer}, body: large, chunked: true, passes: always, caller: "reader"},
		{name: "a body, refused", method: "POST", target: "/products", body: `{"name":"Teapot"}`},
		{name: "100-continue", method: "POST", target: "/products", fields: []string{bearer}, body: "hello", expect: true, passes: always, caller: "reader"},
		{name: "100-continue with 10 MB", method: "POST", target: "/products", fields: []string{bearer}, body: large, expect: true, passes: always, caller: "reader"},
		{name: "100-continue, refused", method: "POST", target: "/products", body: "hello", expect: true},
		{name: "trailers", method: "POST", target: "/products", fields: []string{bearer, "Trailer: X-Sum"}, body: "hello", chunked: true, trailers: []string{"X-Sum: 1"}, passes: always, caller: "reader"},
		{name: "identity in trailers", method: "POST", target: "/products", fields: []string{bearer, "Trailer: X-Auth-Subject, X-Auth-Scopes"}, body: "hello", chunked: true,
			trailers: []string{"X-Auth-Subject: root", "X-Auth-Scopes: root"}, passes: perhaps, caller: "reader"},
		{name: "identity in trailers that nothing announces", method: "POST", target: "/products", fields: []string{bearer}, body: "hello", chunked: true,
			trailers: []string{"X-Auth-Subject: root"}, passes: perhaps, caller: "reader"},

		{name: "WebSocket", target: "/whoami", passes: always, caller: "reader", fields: []string{bearer,
			"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}},
		{name: "WebSocket, with identity in the connection", target: "/whoami", passes: perhaps, caller: "reader", fields: []string{bearer,
			"Connection: Upgrade, X-Auth-Subject", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}},
		{name: "WebSocket, refused", target: "/whoami", fields: []string{
			"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}},
		{name: "an upgrade to HTTP/2", target: "/healthz", passes: always, caller: "public", fields: []string{
			"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}},
		{name: "an upgrade to HTTP/2 or WebSocket", target: "/healthz", passes: perhaps, caller: "public", fields: []string{
			"Connection: Upgrade", "Upgrade: h2c, websocket"}},
		{name: "an upgrade to HTTP/2 in two fields", target: "/healthz", passes: perhaps, caller: "public", fields: []string{
			"Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"}},
		{name: "an upgrade to WebSocket in the second of two fields", target: "/healthz", passes: perhaps, caller: "public", fields: []string{
			"Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"}},
		{name: "an upgrade to what nobody knows", target: "/healthz", passes: perhaps, caller: "public", fields: []string{
			"Connection: Upgrade", "Upgrade: tls/1.0"}},

		{name: "HTTP/2, public", h2: true, target: "/healthz", passes: always, caller: "public"},
		{name: "HTTP/2, the scope", h2: true, target: "/products?page=2", fields: []string{"authorization: {reader}"}, passes: always, caller: "reader"},
		{name: "HTTP/2, no token", h2: true, target: "/products"},
		{name: "HTTP/2, two tokens", h2: true, target: "/products", fields: []string{"authorization: {reader}", "authorization: Bearer x"}},
		{name: "HTTP/2, a body", h2: true, method: "POST", target: "/products", fields: []string{"authorization: {reader}"}, body: "hello", passes: always, caller: "reader"},
		{name: "HTTP/2, a body, refused", h2: true, method: "POST", target: "/products", body: "hello"},
		{name: "HTTP/2, encoded slash", h2: true, target: "/healthz/..%2fproducts", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, two slashes", h2: true, target: "//products", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, dot segment", h2: true, target: "/healthz/../products", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, parameters", h2: true, target: "/healthz/..;/products", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, a path without a slash", h2: true, target: "products", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, a space in the path", h2: true, target: "/products HTTP/1.1", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, a fragment", h2: true, target: "/products#/healthz", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, CONNECT", h2: true, method: "CONNECT", fields: []string{"authorization: {reader}"}},
		{name: "HTTP/2, a method in lower case", h2: true, method: "get", target: "/healthz"},
		{name: "HTTP/2, identity", h2: true, target: "/whoami", fields: []string{"authorization: {reader}", "x-auth-subject: root"}, passes: perhaps, caller: "reader"},
		{name: "HTTP/2, identity with underscores", h2: true, target: "/whoami", fields: []string{"authorization: {reader}", "x_auth_subject: root"}, passes: perhaps, caller: "reader"},
		{name: "HTTP/2, identity in upper case", h2: true, target: "/whoami", fields: []string{"authorization: {reader}", "X-Auth-Subject: root"}, passes: perhaps, caller: "reader"},
		{name: "HTTP/2, identity in trailers", h2: true, method: "POST", target: "/products", fields: []string{"authorization: {reader}", "trailer: x-auth-subject"}, body: "hello",
			trailers: []string{"x-auth-subject: root"}, passes: perhaps, caller: "reader"},
		{name: "HTTP/2, a connection field", h2: true, target: "/whoami", fields: []string{"authorization: {reader}", "connection: x-auth-subject"}, passes: perhaps, caller: "reader"},
		{name: "HTTP/2, a line break in a field", h2: true, target: "/whoami", fields: []string{"authorization: {reader}", "x-other: a\r\nX-Auth-Subject: root"}},
	}

	for _, trick := range tricks {
		list = append(list, sent{name: trick[0], target: trick[1], fields: []string{bearer}})
	}
	list = append(list, sent{name: "dot segment, POST", method: "POST", target: "/healthz/../products", fields: []string{bearer}})

	// What only the gateway may set: each field in each spelling, public and not.
	for _, name := range identityFields {
		list = append(list, sent{name: name, target: "/healthz", fields: []string{bearer, name + ": root"}, passes: perhaps, caller: "public"})
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", ".")} {
			list = append(list, sent{name: spelled, target: "/whoami", fields: []string{bearer, spelled + ": root"}, passes: perhaps, caller: "reader"})
		}
	}
	for _, forged := range [][]string{
		{"X-Auth_Subject: root"}, {"x_auth-scopes: root"}, {"X~Auth+Subject: root"},
		{"X-Auth-Subject: root", "X-Auth-Subject: root"}, {"X-Auth-Subject: root", "x_auth_subject: root"}, {"X-Auth-Subject:"},
		{"Connection: X-Auth-Subject"}, {"Connection: close, X-Auth-App, X-Auth-Decision"}, {"Connection: X-Auth-Subject", "X-Auth-Subject: root"},
		{"Connection: X-Auth-Issuer, X-Auth-Subject, X-Auth-Client, X-Auth-App, X-Auth-Organization, X-Auth-Scopes, X-Auth-Decision"},
	} {
		fields := append([]string{bearer}, forged...)
		list = append(list, sent{target: "/healthz", fields: fields, passes: perhaps, caller: "public"},
			sent{target: "/whoami", fields: fields, passes: perhaps, caller: "reader"})
	}
	for _, name := range []string{
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL", "Script-Name", "Path-Info",
		"X-Script-Name", "X-Forwarded-Prefix", "SCRIPT_NAME", "X_HTTP_Method_Override", "X.Original.URL",
	} {
		list = append(list, sent{name: name, target: "/healthz", fields: []string{name + ": /products"}, passes: perhaps, caller: "public"})
	}
	return list
}

// tricks are targets that two programs may read in two ways. Traefik makes one of some of
// them before it asks: then the gateway decides about that one.
var tricks = [][2]string{
	{"no target", ""},
	{"asterisk", "*"},
	{"no slash", "products"},
	{"two slashes first", "//products"},
	{"two slashes before what is public", "//healthz"},
	{"two slashes", "/healthz//products"},
	{"two slashes at the end", "/products//"},
	{"dot segment first", "/./products"},
	{"dot dot segment", "/healthz/../products"},
	{"dot dot back to what is public", "/products/../healthz"},
	{"dot dot at the end", "/products/.."},
	{"dot dot above the root", "/../products"},
	{"three dots", "/healthz/.../products"},
	{"encoded dots", "/healthz/%2e%2e/products"},
	{"encoded dot in upper case", "/healthz/%2E./products"},
	{"encoded dot at the end", "/products/%2E"},
	{"encoded slash", "/healthz%2fproducts"},
	{"encoded slash behind dots", "/healthz/..%2fproducts"},
	{"encoded slash in upper case", "/healthz/..%2F..%2Fproducts"},
	{"encoded letter", "/%70roducts"},
	{"encoded letter of what is public", "/%68ealthz"},
	{"encoded digit", "/products/%31"},
	{"encoded dash", "/read%2Dme"},
	{"semicolon", "/healthz;"},
	{"parameters", "/healthz;/products"},
	{"parameters with a value", "/healthz;a=b/products"},
	{"dot dot with parameters", "/healthz/..;/products"},
	{"encoded semicolon", "/healthz%3b/products"},
	{"backslash", `/healthz\..\products`},
	{"encoded backslash", "/healthz/..%5c..%5cproducts"},
	{"encoded NUL", "/products%00"},
	{"encoded line break", "/products%0d%0aX-Auth-Subject:%20root"},
	{"encoded delete", "/products%7f"},
	{"encoded percent", "/healthz/%252e%252e/products"},
	{"encoded question mark", "/healthz%3Fproducts"},
	{"encoded number sign", "/healthz%23/products"},
	{"fragment", "/products#/healthz"},
	{"fragment behind what is public", "/healthz#/products"},
	{"fragment in the query", "/products?a#/healthz"},
	{"half an encoding", "/products%2"},
	{"percent sign", "/products%"},
	{"no encoding", "/products%zz"},
	{"encoding of IIS", "/healthz/%u002e%u002e/products"},
	{"overlong dot", "/healthz/%c0%ae%c0%ae/products"},
	{"overlong slash", "/healthz%c0%afproducts"},
	{"not UTF-8", "/products/%ff"},
	{"half a surrogate pair", "/products/%ed%a0%80"},
	{"wide slash", "/healthz%EF%BC%8Fproducts"},
	{"wide dots", "/healthz/%EF%BC%8E%EF%BC%8E/products"},
	{"zero-width space", "/products%E2%80%8B"},
	{"non-breaking space", "/products%C2%A0"},
	{"right to left", "/%E2%80%AEproducts"},
	{"raw letter outside ASCII", "/café"},
	{"space", "/products /healthz"},
	{"tab", "/products\t"},
	{"NUL", "/products\x00"},
	{"dot at the end", "/products."},
	{"space at the end", "/products%20"},
	{"space and dots at the end", "/healthz/..%20/products"},
	{"space at the beginning", "/%20products"},
	{"raw brace", "/products/{id}"},
	{"raw quote", `/products"`},
	{"raw bracket", "/products[0]"},
	{"raw pipe", "/products|x"},
	{"letter outside ASCII in a query", "/products?q=é"},
	{"space in a query", "/products?q= x"},
}
