// Command client is a machine-to-machine app: it gets an access token with its
// App ID and App Secret (OAuth 2.0 client credentials) and calls an API with it.
//
// It calls the shop, GET /products of examples/shop:
//
//	ISSUER=https://your-tenant.logto.app/oidc APP_ID=… APP_SECRET=… go run ./examples/client
//
// or, with -management, Logto's own Management API, GET /api/applications. The
// app needs a machine-to-machine role with the permission "all" of the API
// resource "Logto Management API":
//
//	ENDPOINT=https://your-tenant.logto.app APP_ID=… APP_SECRET=… go run ./examples/client -management
//
// Environment of both:
//
//	APP_ID, APP_SECRET   of a machine-to-machine app
//	TOKEN_URL            the token endpoint; default ISSUER/token, with
//	                     -management ENDPOINT/oidc/token
//
// For the shop:
//
//	ISSUER               the issuer, if TOKEN_URL is not set
//	RESOURCE             the API resource; default https://shopping.api
//	API_URL              where the shop is; default http://127.0.0.1:8080
//
// With -management:
//
//	ENDPOINT             the Logto server, without /oidc. On Logto Cloud this must be
//	                     https://{tenant}.logto.app: the Management API is not known
//	                     at a custom domain
//	MANAGEMENT_RESOURCE  the API resource; default https://{tenant}.logto.app/api on
//	                     Logto Cloud, https://default.logto.app/api elsewhere
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func main() {
	management := flag.Bool("management", false, "call Logto's Management API instead of the shop")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := program{getenv: os.Getenv, transport: http.DefaultTransport, out: os.Stdout}
	task := p.listProducts
	if *management {
		task = p.listApplications
	}
	if err := task(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "client: %v\n", err)
		os.Exit(1)
	}
}

// program is what the client is given from outside, so that a test can give it
// something else.
type program struct {
	getenv    func(string) string
	transport http.RoundTripper
	out       io.Writer
}

// listProducts calls the shop.
func (p program) listProducts(ctx context.Context) error {
	tokenURL := p.getenv("TOKEN_URL")
	if issuer := p.getenv("ISSUER"); tokenURL == "" && issuer != "" {
		tokenURL = strings.TrimSuffix(issuer, "/") + "/token"
	}
	if err := p.required(tokenURL, "ISSUER (or TOKEN_URL)"); err != nil {
		return err
	}
	client := newClient(ctx, p.transport, &clientcredentials.Config{
		ClientID:     p.getenv("APP_ID"),
		ClientSecret: p.getenv("APP_SECRET"),
		TokenURL:     tokenURL,
		Scopes:       []string{"read:products"},
		// Which API the token is for (RFC 8707). Logto issues none without it.
		EndpointParams: url.Values{"resource": {cmp.Or(p.getenv("RESOURCE"), "https://shopping.api")}},
	})
	apiURL := strings.TrimSuffix(cmp.Or(p.getenv("API_URL"), "http://127.0.0.1:8080"), "/")
	body, err := get(ctx, client, apiURL+"/products", "read:products")
	if err != nil {
		return err
	}
	_, err = p.out.Write(body)
	return err
}

// listApplications calls Logto's Management API.
func (p program) listApplications(ctx context.Context) error {
	endpoint := strings.TrimSuffix(p.getenv("ENDPOINT"), "/")
	if err := p.required(endpoint, "ENDPOINT"); err != nil {
		return err
	}
	client := newClient(ctx, p.transport, &clientcredentials.Config{
		ClientID:       p.getenv("APP_ID"),
		ClientSecret:   p.getenv("APP_SECRET"),
		TokenURL:       cmp.Or(p.getenv("TOKEN_URL"), endpoint+"/oidc/token"),
		Scopes:         []string{"all"},
		EndpointParams: url.Values{"resource": {cmp.Or(p.getenv("MANAGEMENT_RESOURCE"), managementResource(endpoint))}},
	})
	body, err := get(ctx, client, endpoint+"/api/applications", "all")
	if err != nil {
		return err
	}
	// The answer holds the applications' secrets too, which have no place on a screen.
	var applications []struct{ ID, Name, Type string }
	if err := json.Unmarshal(body, &applications); err != nil {
		return fmt.Errorf("the answer is not a list of applications (is ENDPOINT a Logto server?): %w", err)
	}
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tTYPE")
	for _, application := range applications {
		fmt.Fprintf(table, "%s\t%s\t%s\n", application.ID, application.Name, application.Type)
	}
	return table.Flush()
}

// managementResource returns the API resource of the Management API of a Logto
// server. It is a name, not an address: on every self-hosted server it is the
// same.
func managementResource(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && strings.HasSuffix(u.Hostname(), ".logto.app") {
		return "https://" + u.Hostname() + "/api"
	}
	return "https://default.logto.app/api"
}

// required returns an error that names all that is missing: an address, with
// the variable that gives it, the App ID and the App Secret.
func (p program) required(address, variable string) error {
	var missing []error
	for _, v := range []struct{ name, value, what string }{
		{variable, address, "where to ask for a token"},
		{"APP_ID", p.getenv("APP_ID"), "the machine-to-machine app's ID"},
		{"APP_SECRET", p.getenv("APP_SECRET"), "the machine-to-machine app's secret"},
	} {
		if v.value == "" {
			missing = append(missing, fmt.Errorf("%s is not set: %s", v.name, v.what))
		}
	}
	return errors.Join(missing...)
}

// newClient returns a client that sends an access token with each request. It
// asks for a token with the first one, and for another when that has expired.
// Keep one client for all requests: one made for each request would ask for a
// token each time.
func newClient(ctx context.Context, transport http.RoundTripper, config *clientcredentials.Config) *http.Client {
	// Detecting the style would send a wrong secret twice.
	config.AuthStyle = oauth2.AuthStyleInHeader
	return config.Client(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: transport,
		Timeout:   10 * time.Second,
		// The token is added to every request, also to one that an API redirects to
		// somebody else's server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}))
}

// get returns the body of the answer to a GET request that needs the scope. If
// the answer is not 200, the error says what to do about it.
func get(ctx context.Context, client *http.Client, url, scope string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, explainFailure(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, explainAnswer(resp, scope)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// explainFailure says why there was no answer of the API: most often there was
// no token to call it with.
func explainFailure(err error) error {
	var refusal *oauth2.RetrieveError
	if !errors.As(err, &refusal) {
		return err // names the URL that could not be reached
	}
	var advice string
	switch refusal.ErrorCode {
	case "invalid_client":
		advice = "APP_ID or APP_SECRET is wrong for this issuer."
	case "invalid_target":
		advice = "The issuer has no such API resource. Its name must be written exactly as it is registered, to the last slash.\n" +
			"(Logto Cloud knows its Management API at https://{tenant}.logto.app alone, at no custom domain.)"
	default:
		advice = "Is this the token endpoint? Logto's issuer is its address with /oidc, and its token endpoint with /oidc/token."
	}
	// Not refusal.Error(): it holds the whole body where that is not what OAuth 2.0 says.
	return fmt.Errorf("no access token: %s: %s %s\n%s",
		refusal.Response.Status, refusal.ErrorCode, refusal.ErrorDescription, advice)
}

// explainAnswer says what an answer other than 200 asks for.
func explainAnswer(resp *http.Response, scope string) error {
	// The API says more in its body; Logto's Management API, in message.
	var body struct {
		Description string `json:"error_description"`
		Message     string `json:"message"`
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&body)

	var advice string
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		advice = "The API does not accept the token. It must be of the API's own issuer, and for its own API resource,\n" +
			"which is to be written exactly alike here and there. The API's log says what it expected."
	case http.StatusForbidden:
		advice = "The token is good, but does not hold the scope " + scope + ". Give the app a machine-to-machine role with this\n" +
			"permission (the issuer leaves out what is not granted, without an error), and run this again for a new token."
	case http.StatusServiceUnavailable:
		advice = "The API cannot check tokens at the moment, since it does not reach its issuer. The token may be fine: keep it,\n" +
			"and try again in a while (Retry-After: " + cmp.Or(resp.Header.Get("Retry-After"), "not said") + ")."
	default:
		advice = "This is no answer of the API that is expected: is the address right?"
	}
	return fmt.Errorf("%s %s: %s: %s\n%s", resp.Request.Method, resp.Request.URL.Redacted(), resp.Status,
		cmp.Or(body.Description, body.Message, "the answer says no more"), advice)
}
