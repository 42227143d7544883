package doctor

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/hint"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/setting"
)

// The checks of an application.
const (
	appSecret   = "app.secret"
	appEndpoint = "app.endpoint"
	appToken    = "app.token"
)

// App is a machine-to-machine application, and where and how it requests a token.
type App struct {
	ID, Secret string
	TokenURL   string     // "" means the one that the issuer names, if that is its own
	Resource   string     // the API that the token is for
	ResourceAs ResourceAs // how the request names it
}

// ResourceAs says how a token request names the API.
type ResourceAs string

// How issuers let a token request name the API.
const (
	AsResource     ResourceAs = "resource"      // RFC 8707; Logto
	AsAudience     ResourceAs = "audience"      // Auth0, Hydra
	AsDefaultScope ResourceAs = "default-scope" // Entra ID: scope=RESOURCE/.default
	AsNothing      ResourceAs = "none"          // the issuer knows it by the application
)

// grant is what a token endpoint granted.
type grant struct {
	resource string
	scopes   []string // by the response
}

// says reports whether the response says that all of the scopes were granted.
func (g *grant) says(scopes []string) bool {
	return !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(g.scopes, s) })
}

// ReadSecret reads a secret from a file, without the line break at its end.
func ReadSecret(name string, r *Report) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0 {
		r.Warn(appSecret, "everybody on this machine may read the file of the application's secret", "chmod 600 "+Shown(name))
	} else {
		r.Pass(appSecret, "read from a file that not everybody may read")
	}
	return secret, nil
}

// AppToken requests a token for an application with the client credentials grant (RFC
// 6749 §4.4), and checks it as [Token] does. The secret goes to one address alone: the
// issuer's own origin, or App.TokenURL. A redirect is not followed.
func AppToken(ctx context.Context, f Found, a App, d Demand, r *Report) {
	if !f.usable() {
		r.Skip(appToken, "a token of it could not be checked: see "+checkSettings)
		return
	}
	r.redact = a.redacted
	endpoint, detail, remedy := a.endpoint(f)
	if endpoint == nil {
		r.Fail(appEndpoint, detail, remedy)
		r.Skip(appToken, "there is no address that the secret may be sent to")
		return
	}
	r.Pass(appEndpoint, detail)
	answer, err := a.request(ctx, f.Config, endpoint, d)
	if err != nil {
		r.Fail(appToken, Shown(a.redacted(err.Error())), a.remedy(err, endpoint))
		return
	}
	detail = "the endpoint granted a token for " + Shown(a.Resource)
	if seconds, err := answer.ExpiresIn.Int64(); err == nil && 0 < seconds && seconds < 1e9 {
		detail += ", which it says lives " + spell(time.Duration(seconds)*time.Second)
	}
	r.Pass(appToken, detail)
	token(ctx, f, answer.AccessToken, d, &grant{resource: a.Resource, scopes: without(f.Config.ScopePrefix, strings.Fields(answer.Scope))}, r)
}

func without(prefix string, scopes []string) (names []string) {
	for _, s := range scopes {
		if name, cut := strings.CutPrefix(s, prefix); cut {
			names = append(names, name)
		}
	}
	return names
}

// endpoint returns where the secret may be sent. A discovery document names addresses by
// the Host header of whoever filled a cache, so only the issuer's own origin is trusted.
func (a App) endpoint(f Found) (u *url.URL, detail, remedy string) {
	if a.TokenURL != "" {
		u, err := url.Parse(a.TokenURL)
		if err != nil || u.Host == "" || u.User != nil {
			return nil, "--token-url is not an absolute URL without user and password", "give the URL of the token endpoint, such as " + strings.TrimSuffix(Shown(f.Config.Issuer), "/") + "/token"
		}
		if !secure(u, f.Config.InsecureHTTPHosts) {
			return nil, "--token-url is neither https nor http to this machine", "use https; for a host that you trust without it, add --insecure-http-host " + Shown(u.Host)
		}
		return u, "the secret goes to " + address(u) + ", as --token-url says", ""
	}
	u = f.TokenEndpoint
	if u == nil {
		return nil, "the issuer names no token endpoint", "give it by --token-url"
	}
	issuer, err := url.Parse(f.Config.Issuer)
	otherHost := err != nil || u.User != nil || ascii.Lower(u.Hostname()) != ascii.Lower(issuer.Hostname())
	switch {
	case !otherHost && u.Scheme != issuer.Scheme:
		return nil, fmt.Sprintf("the issuer names its token endpoint over %s, and the secret is not sent there", Shown(u.Scheme)), "have the proxy send X-Forwarded-Proto, and set TRUST_PROXY_HEADER=1 at Logto; or give the https address by --token-url"
	case otherHost || !keyset.SameOrigin(u, issuer):
		return nil, fmt.Sprintf("the issuer names a token endpoint of another origin, %s, and the secret is not sent there", Shown(u.Host)), "if it is the right one, give it by --token-url; otherwise correct the proxy: Logto writes what the Host header says"
	case !secure(u, nil):
		return nil, "the token endpoint is neither https nor http to this machine, and the secret is not sent there", "use https; or, if you trust the way to it, give its address by --token-url and its host by --insecure-http-host"
	}
	return u, "the secret goes to " + address(u) + ", of the issuer's own origin", ""
}

// secure reports whether a secret may be sent to an address.
func secure(u *url.URL, insecureHosts []string) bool {
	return u.Scheme == "https" || u.Scheme == "http" && setting.IsInsecureHost(u, insecureHosts)
}

// answer is a token endpoint's successful response (RFC 6749 §5.1).
type answer struct {
	AccessToken string      `json:"access_token"`
	TokenType   string      `json:"token_type"`
	ExpiresIn   json.Number `json:"expires_in"` // some servers write a string
	Scope       string      `json:"scope"`
}

// endpointError is an error response (RFC 6749 §5.2), or one that is none.
type endpointError struct {
	Status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *endpointError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("status %d, and no error as of RFC 6749", e.Status)
	}
	return strings.TrimSuffix(fmt.Sprintf("status %d, %s: %s", e.Status, Shown(e.Code), Shown(e.Description)), ": ")
}

const maxAnswerBytes = 1 << 20

// form returns the parameters of the token request.
func (a App) form(c m2mauth.Config, d Demand) url.Values {
	form := url.Values{"grant_type": {"client_credentials"}}
	var scopes []string
	for _, s := range d.Scopes {
		scopes = append(scopes, c.ScopePrefix+s)
	}
	switch a.ResourceAs {
	case AsDefaultScope:
		scopes = []string{a.Resource + "/.default"}
	case AsNothing:
	default:
		if !strings.HasPrefix(a.Resource, hint.OrganizationAudience) { // by organization_id alone
			form.Set(string(cmp.Or(a.ResourceAs, AsResource)), a.Resource)
		}
	}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if d.Organization != "" {
		form.Set("organization_id", d.Organization)
	}
	return form
}

var (
	errRedirect  = errors.New("the token endpoint redirects, and the secret is not sent on")
	errNotBearer = errors.New("the token is not a bearer token")
	errNoToken   = errors.New("the response has no access_token")
	errNotJSON   = errors.New("the response is not JSON")
)

func (a App) request(ctx context.Context, c m2mauth.Config, endpoint *url.URL, d Demand) (*answer, error) {
	timeout := timeoutOf(c)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), strings.NewReader(a.form(c, d).Encode()))
	if err != nil {
		return nil, errors.New("not a URL that can be asked")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", userAgent)
	r.SetBasicAuth(url.QueryEscape(a.ID), url.QueryEscape(a.Secret)) // RFC 6749 §2.3.1
	client := keyset.NewClient(c.HTTPClient, timeout)
	client.Jar = nil
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok { // its text has the whole URL
			err = wrapped.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode/100 == 3:
		return nil, errRedirect
	case response.StatusCode != http.StatusOK:
		refused := &endpointError{Status: response.StatusCode}
		if json.Unmarshal(body, refused) != nil {
			*refused = endpointError{}
		}
		refused.Status, refused.Code, refused.Description = response.StatusCode, a.redacted(refused.Code), a.redacted(refused.Description)
		return nil, refused
	}
	got := new(answer)
	switch err := json.Unmarshal(body, got); {
	case err != nil: // whose text may have parts of the token
		return nil, errNotJSON
	case got.AccessToken == "":
		return nil, errNoToken
	case !strings.EqualFold(got.TokenType, "Bearer"):
		return nil, errNotBearer
	}
	return got, nil
}

// redacted removes the secret from what a server says, which may repeat the request. It
// must see the whole text: of a text that was cut, it would leave a part.
func (a App) redacted(text string) string {
	escaped := url.QueryEscape(a.Secret)
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(a.ID) + ":" + escaped))
	for _, form := range []string{basic, escaped, a.Secret} {
		text = strings.ReplaceAll(text, form, "[secret]")
	}
	return text
}

// remedy says what to do about a failed token request.
func (a App) remedy(err error, endpoint *url.URL) string {
	if refused, ok := errors.AsType[*endpointError](err); ok {
		return a.remedyFor(refused)
	}
	switch {
	case errors.Is(err, errRedirect):
		return "give the address that it redirects to by --token-url, if you trust it"
	case errors.Is(err, errNotBearer):
		return "have the issuer issue plain bearer tokens to this application, without DPoP and mutual TLS"
	case errors.Is(err, errNoToken), errors.Is(err, errNotJSON):
		return "the address is not that of a token endpoint: give that by --token-url"
	case isTimeout(err):
		return "nothing answered in time: a firewall, a wrong port, a proxy of the environment, or a slow issuer (--timeout)"
	}
	return "this machine cannot reach " + address(endpoint) + ": see the checks of the issuer, or give the address by --token-url"
}

func (a App) remedyFor(e *endpointError) string {
	resource := Shown(a.Resource)
	switch e.Code {
	case "invalid_client":
		if e.Status == http.StatusBadRequest {
			return "the issuer does not know the application: compare M2MAUTH_APP_ID with its App ID, and look whether it is of this tenant"
		}
		return "the secret is wrong or was replaced, or the issuer does not know the ID: compare both with the application at the issuer, which must be allowed to authenticate by HTTP Basic (client_secret_basic)"
	case "invalid_target", "invalid_resource":
		return fmt.Sprintf("the issuer has no API resource %s, byte by byte: register it, or give --resource as it is registered", resource)
	case "invalid_scope":
		return "the issuer refuses a scope that it does not know or does not grant: compare --scope with the API's permissions, and give the application a role that has them"
	case "unauthorized_client":
		return "the application may not use the client credentials grant: make it a machine-to-machine application, and authorize it for the API; or the secret or the ID is wrong (Keycloak and Entra ID say so in these words too)"
	case "unsupported_grant_type":
		return "the issuer does not offer client credentials here: --token-url may be that of another server"
	case "access_denied":
		return "the application is not in the organization of --organization, or is not authorized for the API, or a claims script denied it: ask the tenant's administrator"
	case "invalid_request":
		return "the secret may have expired, the application may be of another kind than machine-to-machine, or the issuer wants the API named otherwise: see --resource-as"
	}
	switch {
	case e.Code == "" && e.Status == http.StatusNotFound, e.Code == "" && e.Status == http.StatusMethodNotAllowed:
		return "the address is not that of a token endpoint: give that by --token-url"
	case e.Status == http.StatusTooManyRequests || e.Status >= 500:
		return "the issuer is overloaded or failing: try again later, and look at its log"
	}
	return "look at the issuer's log: it refused the token request"
}
