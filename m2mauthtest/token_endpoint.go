package m2mauthtest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// serveToken is the token endpoint: the client credentials grant (RFC 6749
// section 4.4) with a resource indicator (RFC 8707), as Logto has it.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	allowOrigins(h)
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate")
	h.Set("Cache-Control", "no-store")

	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	grant, refusal := i.grant(r)
	if refusal != nil {
		if refusal.challenge {
			h.Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q, error=%q, error_description=%q",
				i.URL(), refusal.Name, refusal.Description))
		}
		writeJSON(w, refusal.status, refusal)
		return
	}
	var scope *string
	if len(grant.Scopes) > 0 {
		joined := strings.Join(grant.Scopes, " ")
		scope = &joined
	}
	writeJSON(w, http.StatusOK, struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   int64   `json:"expires_in"`
		TokenType   string  `json:"token_type"`
		Scope       *string `json:"scope,omitempty"`
	}{
		AccessToken: i.Sign(grant),
		ExpiresIn:   int64(grant.Lifetime / time.Second),
		TokenType:   "Bearer",
		Scope:       scope,
	})
}

// grant returns the token that the request gets. It checks in the order of the
// recorded server.
func (i *Issuer) grant(r *http.Request) (Token, *oidcError) {
	params, refusal := readParams(r)
	if refusal != nil {
		return Token{}, refusal
	}
	c, refusal := readCredentials(r, params)
	if refusal != nil {
		return Token{}, refusal
	}

	i.mu.Lock()
	defer i.mu.Unlock()
	app := i.tenant.apps[c.id]
	if app == nil {
		return Token{}, newOIDCError("invalid_client", "invalid client "+c.id)
	}
	if c.secret != app.Secret {
		refusal := newOIDCError("invalid_client", "client authentication failed")
		refusal.status = http.StatusUnauthorized
		refusal.challenge = c.basic
		return Token{}, refusal
	}
	if refusal := checkGrantType(params.Get("grant_type")); refusal != nil {
		return Token{}, refusal
	}
	organization := params.Get("organization_id")
	if _, member := i.tenant.organizations[organization][app.ID]; organization != "" && !member {
		refusal := newOIDCError("access_denied", "app has not associated with the organization")
		refusal.status = http.StatusForbidden
		return Token{}, refusal
	}
	roles := i.tenant.rolesOf(app, organization)
	asked := strings.Split(params.Get("scope"), " ")
	if organization != "" && len(params["resource"]) == 0 {
		return i.tenant.organizationToken(app, organization, roles, asked), nil
	}
	if slices.Equal(params["resource"], []string{organizationsResource}) {
		return i.tenant.reservedToken(app, asked), nil
	}
	indicator, refusal := i.tenant.target(params["resource"])
	if refusal != nil {
		return Token{}, refusal
	}
	return Token{
		AppID:          app.ID,
		Audience:       indicator,
		Scopes:         granted(roles, indicator, asked),
		OrganizationID: organization,
		Lifetime:       i.tenant.resources[indicator].lifetime,
	}, nil
}

// organizationToken returns a token with the scopes in the order of the tenant. Where
// there is none, it has an empty scope.
func (t *tenant) organizationToken(a *app, organization string, roles []grants, asked []string) Token {
	permissions := slices.DeleteFunc(slices.Clone(t.permissions), func(p string) bool { return !slices.Contains(asked, p) })
	if permissions = granted(roles, "", permissions); len(permissions) == 0 {
		permissions = []string{""}
	}
	return Token{AppID: a.ID, Audience: "urn:logto:organization:" + organization, Scopes: permissions, Lifetime: time.Hour}
}

// organizationsResource is the indicator that the recorded server reserves.
const organizationsResource = "urn:logto:resource:organizations"

// reservedToken returns a token with every organization permission of the request,
// whatever the app's roles are. The recorded server grants that, so no API may accept
// this audience.
func (t *tenant) reservedToken(a *app, asked []string) Token {
	return Token{
		AppID:    a.ID,
		Audience: organizationsResource,
		Scopes:   granted([]grants{{"": t.permissions}}, "", asked),
		Lifetime: time.Hour,
	}
}

// readParams reads the body, a form or JSON. A parameter without a value counts as
// missing, and only resource may be repeated (RFC 6749 section 3.2, RFC 8707 section 2).
func readParams(r *http.Request) (url.Values, *oidcError) {
	var params url.Values
	var err error
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType == "application/json" {
		params, err = readJSON(r)
	} else {
		err = r.ParseForm()
		params = r.PostForm
	}
	if err != nil {
		return nil, newOIDCError("invalid_request", "failed to parse the request body")
	}
	for name, values := range params {
		values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
		if len(values) > 1 && name != "resource" {
			return nil, newOIDCError("invalid_request", fmt.Sprintf("'%s' parameter must not be provided twice", name))
		}
		params[name] = values
	}
	return params, nil
}

// readJSON reads parameters that are strings, or arrays for several values.
func readJSON(r *http.Request) (url.Values, error) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	params := url.Values{}
	for name, value := range body {
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		for _, v := range values {
			params.Add(name, fmt.Sprint(v))
		}
	}
	return params, nil
}

type clientCredentials struct {
	id, secret string
	basic      bool
}

// readCredentials reads the client's ID and secret from the header or from the body
// (RFC 6749 section 2.3.1). In the header both are form-encoded.
func readCredentials(r *http.Request, params url.Values) (clientCredentials, *oidcError) {
	if r.Header.Get("Authorization") == "" {
		if params.Get("client_id") == "" {
			return clientCredentials{}, newOIDCError("invalid_request", "no client authentication mechanism provided")
		}
		return clientCredentials{id: params.Get("client_id"), secret: params.Get("client_secret")}, nil
	}
	if params.Get("client_secret") != "" {
		return clientCredentials{}, newOIDCError("invalid_request", "client authentication must only be provided using one mechanism")
	}
	id, secret, ok := r.BasicAuth()
	id, idErr := url.QueryUnescape(id)
	secret, secretErr := url.QueryUnescape(secret)
	if !ok || idErr != nil || secretErr != nil {
		return clientCredentials{}, newOIDCError("invalid_request", "invalid authorization header value format")
	}
	return clientCredentials{id: id, secret: secret, basic: true}, nil
}

func checkGrantType(grantType string) *oidcError {
	switch grantType {
	case "client_credentials":
		return nil
	case "":
		return newOIDCError("invalid_request", "missing required parameter 'grant_type'")
	case "authorization_code", "refresh_token",
		"urn:ietf:params:oauth:grant-type:device_code",
		"urn:ietf:params:oauth:grant-type:token-exchange":
		return newOIDCError("invalid_request", "requested grant type is not allowed for this client")
	default:
		return newOIDCError("unsupported_grant_type", "unsupported grant_type requested")
	}
}

// absoluteURI matches what begins with a scheme (RFC 3986 section 4.3).
var absoluteURI = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:.`)

// target returns the resource that the token is for.
func (t *tenant) target(indicators []string) (string, *oidcError) {
	if len(indicators) == 0 && t.defaultResource != "" {
		return t.defaultResource, nil
	}
	var problem string
	switch {
	case len(indicators) == 0:
		problem = "both `resource` and `organization_id` are not provided"
	case len(indicators) > 1:
		problem = "only a single resource indicator value is supported for this grant type"
	case !absoluteURI.MatchString(indicators[0]):
		problem = "resource indicator must be an absolute URI"
	case strings.Contains(indicators[0], "#"):
		problem = "resource indicator must not contain a fragment component"
	case t.resources[indicators[0]] == nil:
		problem = "resource indicator is missing, or unknown"
	default:
		return indicators[0], nil
	}
	return "", newOIDCError("invalid_target", problem)
}

// oidcError is the body of an error response: that of RFC 6749 section 5.2, after the
// members that Logto adds.
type oidcError struct {
	Code        string `json:"code"`
	Message     string `json:"message"`
	Name        string `json:"error"`
	Description string `json:"error_description"`

	status    int
	challenge bool // send WWW-Authenticate
}

// newOIDCError returns an error response with status 400.
func newOIDCError(name, description string) *oidcError {
	message := map[string]string{
		"access_denied":          "Access denied.",
		"invalid_request":        "Request is invalid.",
		"invalid_target":         "Invalid resource indicator.",
		"unsupported_grant_type": "Unsupported `grant_type` requested.",
	}[name]
	if message == "" {
		message = "An OIDC error occurred: oidc." + name + "."
	}
	return &oidcError{
		Code:        "oidc." + name,
		Message:     message,
		Name:        name,
		Description: description,
		status:      http.StatusBadRequest,
	}
}
