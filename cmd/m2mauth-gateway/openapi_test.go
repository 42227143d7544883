package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// described is a document that leaves something open for each list of openapi.
const described = `openapi: 3.1.0
info: {title: Shop, version: "1"}
components:
  securitySchemes:
    oauth: {type: oauth2, flows: {clientCredentials: {tokenUrl: https://login.shop.example/token, scopes: {"read:orders": "", "write:orders": ""}}}}
    key: {type: apiKey, in: header, name: X-Api-Key}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      security: [{oauth: ["read:orders"]}]
      responses: {"200": {description: ""}}
    head:
      operationId: headOrder
      security: [{oauth: ["read:orders"]}]
      responses: {"200": {description: ""}}
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
  /health:
    get:
      operationId: getHealth
      responses: {"200": {description: ""}}
  /offers:
    get:
      operationId: listOffers
      security: [{}, {oauth: ["read:orders"]}]
      responses: {"200": {description: ""}}
  /profile:
    get:
      operationId: getProfile
      security: [{oauth: []}]
      responses: {"200": {description: ""}}
  /invoices:
    post:
      operationId: uploadInvoice
      security: [{key: [], oauth: ["write:orders"]}]
      responses: {"200": {description: ""}}
`

func TestRowsOfADocument(t *testing.T) {
	t.Parallel()
	issuer := listenIssuer(t)
	dir := t.TempDir()
	document := filepath.Join(dir, "openapi.yaml")
	require.NoError(t, os.WriteFile(document, []byte(described), 0o600))
	text := fmt.Sprintf(`http: {address: "127.0.0.1:0"}
issuers:
  - {issuer: %q, audience: "https://shopping.api"}
openapi:
  - document: openapi.yaml
    base_path: /v1
    public: [getHealth]
    optional: [listOffers]
    any_token: [getProfile]
    elsewhere: [uploadInvoice]
rules:
  - GET /v1/orders/latest any-scope read:latest read:orders
end: true
`, issuer.URL())
	file := filepath.Join(dir, "gateway.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write(text)
	f := &follower{file: file, environ: func() []string { return nil }, gateway: &gateway{metrics: newMetrics()}}
	require.NoError(t, f.start(t.Context()))
	bearer := func(scopes ...string) string {
		return "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: scopes})
	}
	for _, test := range []struct {
		method, target, authorization string
		status                        int
		decision                      string
	}{
		{"GET", "/v1/orders/7", bearer("read:orders"), 204, "allowed"},
		{"HEAD", "/v1/orders/7", bearer("read:orders"), 204, "allowed"},
		{"GET", "/v1/orders/7", bearer("write:orders"), 403, ""},
		{"GET", "/v1/orders/7", "", 401, ""},
		{"GET", "/orders/7", bearer("read:orders"), 403, ""},
		{"GET", "/v1/orders/latest", bearer("read:latest"), 204, "allowed"},
		{"GET", "/v1/health", "", 204, "public"},
		{"GET", "/v1/offers", "", 204, "anonymous"},
		{"GET", "/v1/offers", bearer("read:orders"), 204, "allowed"},
		{"GET", "/v1/offers", bearer(), 403, ""},
		{"GET", "/v1/offers", "Bearer rubbish", 401, ""},
		{"GET", "/v1/profile", bearer(), 204, "allowed"},
		{"POST", "/v1/invoices", bearer("write:orders"), 204, "allowed"},
		{"POST", "/v1/invoices", "", 401, ""},
		{"GET", "/v1/offers.json", "", 401, ""},
		{"GET", "/v1/orders/Latest", bearer("read:orders"), 400, ""},
	} {
		status, told, _ := decision(t, f.gateway, test.method, test.target, test.authorization)
		assert.Equal(t, test.status, status, test)
		if status == 204 {
			assert.Equal(t, test.decision, told[6], test)
			assert.Equal(t, test.decision != "allowed", strings.Join(told[:6], "") == "", test)
		}
	}
	var said bytes.Buffer
	assert.True(t, f.gateway.current.Load().explain(&said, "GET", "/v1/orders/7"))
	assert.Contains(t, said.String(), `decided by: GET /v1/orders/{id} AllScopes("read:orders") (openapi.yaml:9)`)
	said.Reset()
	assert.True(t, f.gateway.current.Load().explain(&said, "GET", "/v1/offers"))
	assert.Contains(t, said.String(), "needs: nothing; but a token must be a valid one")

	assert.False(t, f.changed())
	require.NoError(t, os.WriteFile(document, []byte(strings.Replace(described, "    head:\n      operationId: headOrder\n", "    head:\n      operationId: headOnly\n", 1)), 0o600))
	assert.True(t, f.changed(), "the document is followed too")
}

func TestMistakesInADocumentAreNamedWithItsLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(document, lists string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "openapi.yaml"), []byte(document), 0o600))
		file := filepath.Join(dir, "gateway.yaml")
		text := strings.Replace(minimal, "rules:", "openapi:\n  - document: openapi.yaml\n"+lists+"rules:", 1)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := examine(file, nil, nil, nil)
		return fmt.Sprint(err)
	}
	const lists = "    public: [getHealth]\n    optional: [listOffers]\n    any_token: [getProfile]\n    elsewhere: [uploadInvoice]\n"
	assert.Equal(t, "<nil>", read(described, lists))
	assert.Regexp(t, `^openapi.yaml:19: .*GET /health`, read(described, strings.Replace(lists, "    public: [getHealth]\n", "", 1)))
	assert.Regexp(t, `^gateway.yaml:7: openapi\[0\]: .*nobody`, read(described, strings.Replace(lists, "[getHealth]", "[getHealth, nobody]", 1)))
	assert.Contains(t, read(described, strings.Replace(lists, "public", "publik", 1)), "gateway.yaml:8: openapi[0].publik: there is no such setting")
	assert.Regexp(t, `^openapi.yaml:\d+: GET /healthz and GET /healthz \(rules, line 13\) match the same paths`, read(strings.Replace(described, "  /health:", "  /healthz:", 1), lists))
	assert.Regexp(t, `openapi.yaml:\d+: HEAD /orders/\{id\}: HEAD follows GET`, read(strings.Replace(described, "    get:\n      operationId: getOrder\n      security: [{oauth: [\"read:orders\"]}]\n      responses: {\"200\": {description: \"\"}}\n", "", 1), lists))
}
