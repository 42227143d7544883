// Command m2mauth-gateway is the guard as a service that a proxy asks before it lets a
// request through to an API, in whatever language that is written. It answers nginx's
// auth_request, the forward authentication of Traefik and Caddy, and Envoy's ext_authz over
// gRPC:
//
//	m2mauth-gateway FILE                      serves, and follows the file
//	m2mauth-gateway validate FILE             finds every mistake, without a network
//	m2mauth-gateway explain FILE METHOD PATH  says which row decides, and why
//
//	GET /nginx         asks about X-Original-Method and X-Original-URI
//	GET /forward-auth  asks about X-Forwarded-Method and X-Forwarded-Uri
//	GET /healthz       200, for probes of the gateway itself
//	GET /readyz        200, or 503 while the list of revoked tokens cannot answer
//
// An answer of 2xx lets the request through, with the caller in the fields X-Auth-Issuer,
// X-Auth-Subject, X-Auth-Client, X-Auth-App, X-Auth-Organization, X-Auth-Scopes and
// X-Auth-Decision. docs/gateway.md says what each proxy must be told, what the gateway
// refuses, and what each setting means.
//
// The file is YAML, and gateway.yaml beside this one is an example. Its settings:
//
//	http: address, tls (certificate, key, client_ca)
//	grpc: address, tls (certificate, key, client_ca), keep_authorization
//	metrics: address, tls (certificate, key, client_ca)
//	issuers: a list of
//	  name
//	  preset: name, and the arguments of the function of package issuers
//	  issuer, audience, other_audiences, jwks_url, jwks, insecure_http_hosts, algorithms,
//	  token_types, scope_claims, scope_prefix, scope_organization, implied_scopes,
//	  client_claims, organization_claims, required_claims, allow_missing_subject,
//	  clients_without_audience, leeway, max_lifetime, key_ttl, key_stale_for,
//	  fetch_timeout, insecure_allow_organization_tokens: as in m2mauth.Config
//	rules: a list of rows, or of row, issuer, client, organization; or a block of text
//	openapi: a list of document, base_path, public, optional, any_token, elsewhere: rows from
//	  OpenAPI documents, as in openapiauth.Options
//	realm, insecure_report_only_until: as in m2mauth.Config, for all issuers
//	limits: max_token_bytes, cache_bytes, max_header_bytes, shutdown_timeout
//	revocation: max_token_lifetime, leeway, max_entries, stale_for, insecure_fail_open
//	  redis: address, cluster, username, password_file, tls, ca, database, key, timeout
//	end: true, as the last line: without it the file may be half written
//
// A variable M2MAUTH_GATEWAY_… goes before the single value of the file that it is named
// after: M2MAUTH_GATEWAY_HTTP_ADDRESS before http.address. Lists have none. The password of
// the revocation store is M2MAUTH_GATEWAY_REVOCATION_REDIS_PASSWORD, which has no field. The
// command line reads M2MAUTH_GATEWAY_FILE, M2MAUTH_GATEWAY_LOG_LEVEL and
// M2MAUTH_GATEWAY_LOG_FORMAT.
package main
