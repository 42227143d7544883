// Command quickstart shows m2mauth at work, with no account and no server:
//
//	go run ./examples/quickstart
//
// It starts an issuer (the one of package m2mauthtest, which behaves as Logto
// does) and an API that m2mauth protects, both on loopback. Three M2M apps get
// tokens and call the API; a table says who got what, and why.
//
// With -serve both keep running, and curl lines are printed to try by hand.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// resource names the API towards the issuer. It need not be a URL that answers:
// apps ask the issuer for a token for it, and the API accepts no other tokens.
const resource = "https://shopping.api"

func main() {
	serve := flag.Bool("serve", false, "keep issuer and API running, and print curl lines for them")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *serve); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, serve bool) error {
	issuer, apps, err := startIssuer()
	if err != nil {
		return err
	}
	defer issuer.Close()

	// The guard's log says why it refused a request. Here the table does, so the
	// log is shown only while you try things by hand.
	logger := slog.New(slog.DiscardHandler)
	if serve {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	apiURL, closeAPI, err := startAPI(issuer.URL(), logger)
	if err != nil {
		return err
	}
	defer closeAPI()

	fmt.Fprintln(out, "Three M2M apps ask the issuer for a token for "+resource+", with the scopes")
	fmt.Fprintln(out, "read:products and write:products, and call the API with what they get:")
	if serve {
		fmt.Fprintln(out, "(Lines with level=WARN are the API's log: why it refused a request.)")
	}
	fmt.Fprintln(out)
	if err := callAll(ctx, out, issuer.TokenURL(), apiURL, apps); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if !serve {
		fmt.Fprintln(out, "To call the API yourself:            go run ./examples/quickstart -serve")
		fmt.Fprintln(out, "To protect an API with your issuer:  see examples/shop")
		return nil
	}
	printCurl(out, issuer.TokenURL(), apiURL, apps)
	<-ctx.Done()
	return nil
}

// apps are the three M2M apps of the quickstart.
type apps struct{ reader, writer, noRole m2mauthtest.App }

// startIssuer starts the issuer and registers at it what you would register in
// Logto's console: an API resource with its permissions, two machine-to-machine
// roles, and three machine-to-machine apps.
func startIssuer() (*m2mauthtest.Issuer, apps, error) {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return nil, apps{}, err
	}
	issuer.AddResource(resource, "read:products", "write:products")
	issuer.AddRole("product reader", resource, "read:products")
	issuer.AddRole("product writer", resource, "read:products", "write:products")
	return issuer, apps{
		reader: issuer.AddApp("reader", "product reader"),
		writer: issuer.AddApp("writer", "product writer"),
		noRole: issuer.AddApp("no role"),
	}, nil
}

// startAPI starts the API behind a guard that accepts the issuer's tokens.
func startAPI(issuer string, logger *slog.Logger) (productsURL string, closeAPI func() error, err error) {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   issuer,
		Audience: resource,
		Logger:   logger,
	})
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /products", guard.Require("read:products")(answer(http.StatusOK, `[{"id":1,"name":"Kettle"}]`)))
	mux.Handle("POST /products", guard.Require("write:products")(answer(http.StatusCreated, `{"id":2,"name":"Teapot"}`)))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) // until closeAPI
	return "http://" + listener.Addr().String() + "/products", server.Close, nil
}

func answer(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintln(w, body)
	})
}

// getToken gets an access token from the issuer for the app's ID and secret
// (OAuth 2.0 client credentials).
func getToken(ctx context.Context, tokenURL string, app m2mauthtest.App) (string, error) {
	config := clientcredentials.Config{
		ClientID:     app.ID,
		ClientSecret: app.Secret,
		TokenURL:     tokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader,
		// Scopes that the app's roles do not grant are left out of the token in silence.
		Scopes: []string{"read:products", "write:products"},
		// Without a resource (RFC 8707) Logto refuses: it knows no API to issue a token for.
		EndpointParams: url.Values{"resource": {resource}},
	}
	token, err := config.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get a token for the app %s: %w", app.Name, err)
	}
	return token.AccessToken, nil
}

// forge adds write:products to a token's scopes and leaves its signature as it was.
func forge(token string) (string, error) {
	parts := strings.Split(token, ".") // header, payload, signature
	if len(parts) != 3 {
		return "", fmt.Errorf("the access token has %d parts instead of 3", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("the access token's payload: %w", err)
	}
	forged := strings.Replace(string(payload), "read:products", "read:products write:products", 1)
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(forged))
	return strings.Join(parts, "."), nil
}

// callAll gets the apps' tokens, calls the API with them, and prints a table of
// what came back. An answer with another status than expected is an error.
func callAll(ctx context.Context, out io.Writer, tokenURL, apiURL string, apps apps) error {
	readerToken, err1 := getToken(ctx, tokenURL, apps.reader)
	writerToken, err2 := getToken(ctx, tokenURL, apps.writer)
	noRoleToken, err3 := getToken(ctx, tokenURL, apps.noRole)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	forgedToken, err := forge(readerToken)
	if err != nil {
		return err
	}

	calls := []struct {
		who, method, token string
		status             int
		why                string
	}{
		{"reader", "GET", readerToken, 200, "its role grants read:products"},
		{"reader", "POST", readerToken, 403, "its role does not grant write:products"},
		{"writer", "POST", writerToken, 201, "its role grants write:products"},
		{"no role", "GET", noRoleToken, 403, "its token is good, but grants nothing"},
		{"forger", "POST", forgedToken, 401, "it wrote write:products into the reader's token"},
		{"stranger", "GET", "", 401, "it sent no token"},
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tCALL\tANSWER\tWHY")
	unexpected := 0
	for _, call := range calls {
		status, code, err := send(ctx, call.method, apiURL, call.token)
		if err != nil {
			return err
		}
		why := call.why
		if status != call.status {
			unexpected++
			why = fmt.Sprintf("NOT EXPECTED: should be %d, since %s", call.status, call.why)
		}
		fmt.Fprintf(table, "%s\t%s /products\t%d %s\t%s\n", call.who, call.method, status, code, why)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d of %d answers are not the expected ones", unexpected, len(calls))
	}
	return nil
}

// send calls the API and returns the answer's status, with the error code of a
// refusal's body, or the status text of any other answer.
func send(ctx context.Context, method, url, token string) (status int, code string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return resp.StatusCode, http.StatusText(resp.StatusCode), nil
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&refusal); err != nil {
		return 0, "", fmt.Errorf("%s %s: cannot read the body of the answer %d: %w", method, url, resp.StatusCode, err)
	}
	return resp.StatusCode, refusal.Error, nil
}

// printCurl prints lines to paste into a shell. They hold the apps' secrets,
// which is fine here only: the issuer and its apps are gone when the program ends.
func printCurl(out io.Writer, tokenURL, apiURL string, apps apps) {
	fmt.Fprintf(out, `Issuer and API keep running until Ctrl-C. Paste this into another terminal:

# An app's ID and secret, which this issuer alone knows and forgets when it stops.
APP='%[4]s:%[5]s' # reader
# APP='%[6]s:%[7]s' # writer
# APP='%[8]s:%[9]s' # no role

# The app gets a token for the API.
TOKEN=$(curl -sS -u "$APP" %[1]s \
  -d grant_type=client_credentials \
  --data-urlencode 'resource=%[3]s' \
  --data-urlencode 'scope=read:products write:products' |
  sed -E 's/.*"access_token": *"([^"]*)".*/\1/')

# It calls the API with the token.
curl -i -H "Authorization: Bearer $TOKEN" %[2]s
curl -i -H "Authorization: Bearer $TOKEN" -X POST %[2]s
`, tokenURL, apiURL, resource,
		apps.reader.ID, apps.reader.Secret, apps.writer.ID, apps.writer.Secret, apps.noRole.ID, apps.noRole.Secret)
}
