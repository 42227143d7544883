package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// demo runs the server with an issuer and two clients of its own, and prints every
// request with its answer. An outcome other than expected is an error.
func demo(ctx context.Context, out io.Writer) error {
	issuer, err := m2mauthtest.ListenIssuer("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer issuer.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	resource := "http://" + listener.Addr().String() + "/mcp"
	editor, owner := register(issuer, resource)

	// The table says why requests are refused; the log need not.
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	guard, err := m2mauth.New(m2mauth.Config{Issuer: issuer.URL(), Audience: resource, ImpliedScopes: hierarchy})
	if err != nil {
		return err
	}
	handler, err := routes(guard, resource)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) // until Close
	defer server.Close()

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tREQUEST\tSTATUS\tWHAT THE ANSWER SAYS")
	unexpected := 0
	for _, test := range []struct {
		app   m2mauthtest.App
		tools []string
		fails string // the last of them, with this error; "" if it succeeds
	}{
		{editor, []string{"list_products", "create_product", "list_products", "remove_product"}, "does not grant admin:products to editor"},
		{owner, []string{"remove_product"}, ""},
	} {
		wire := &wire{who: test.app.Name, out: table}
		err := use(ctx, wire, issuer.URL(), resource, test.app, test.tools)
		if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
			fmt.Fprintf(table, "%s\tNOT EXPECTED: %v\n", test.app.Name, cmp.Or(err, fmt.Errorf("it should fail: %s", test.fails)))
			unexpected++
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d clients were not treated as expected", unexpected)
	}
	return nil
}

// register does at the issuer what you would do in Logto's console.
func register(issuer *m2mauthtest.Issuer, resource string) (editor, owner m2mauthtest.App) {
	issuer.AddResource(resource, "read:products", "write:products", "admin:products")
	issuer.AddRole("editor", resource, "read:products", "write:products")
	issuer.AddRole("owner", resource, "read:products", "write:products", "admin:products")
	return issuer.AddApp("editor", "editor"), issuer.AddApp("owner", "owner")
}

// use begins a session as an app, lists the tools and calls some.
func use(ctx context.Context, wire *wire, issuer, resource string, app m2mauthtest.App, tools []string) error {
	client := &http.Client{Transport: wire, Timeout: 10 * time.Second}
	session, err := mcp.NewClient(&mcp.Implementation{Name: app.Name, Version: "1.0.0"}, nil).Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:             resource,
		HTTPClient:           client,
		OAuthHandler:         &credentials{app: app, issuer: issuer, client: client},
		DisableStandaloneSSE: true, // the shop sends nothing that nobody asked for
	}, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	if _, err := session.ListTools(ctx, nil); err != nil {
		return err
	}
	arguments := map[string]any{"create_product": newProduct{"Teapot"}, "remove_product": reference{2}}
	for _, tool := range tools {
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments[tool]})
		if err != nil {
			return err
		}
		if result.IsError {
			return fmt.Errorf("%s failed: %v", tool, result.GetError())
		}
	}
	return nil
}

// wire writes a row for each request that a client sends. Tokens and secrets are not in
// it.
type wire struct {
	who string
	out io.Writer

	mu sync.Mutex // held while a row is written
}

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.out, "%s\t%s %s%s\t%d%s\n", w.who, r.Method, r.URL.Path, describe(r, sent), resp.StatusCode, explain(resp))
	return resp, nil
}

// describe says what a request is about.
func describe(r *http.Request, body []byte) string {
	if form, err := url.ParseQuery(string(body)); err == nil && form.Has("grant_type") {
		return ", scope=" + form.Get("scope")
	}
	var message struct {
		Method string
		Params struct{ Name string }
	}
	if r.Method != http.MethodPost || json.Unmarshal(body, &message) != nil {
		return ""
	}
	return strings.TrimRight(" "+message.Method+" "+message.Params.Name, " ")
}

// explain returns the cell of what an answer tells the client, if it tells something.
func explain(resp *http.Response) string {
	challenges, _ := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	if len(challenges) > 0 {
		c := challenges[0]
		if c.Params["error"] != "" {
			return "\t" + c.Params["error"] + ": scope=" + c.Params["scope"]
		}
		return "\tmetadata is at " + path(c.Params["resource_metadata"])
	}
	if resp.Request.Method != http.MethodPost && resp.StatusCode == http.StatusOK || strings.HasSuffix(resp.Request.URL.Path, "/token") {
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var said struct {
			Servers []string `json:"authorization_servers"`
			Scopes  []string `json:"scopes_supported"`
			Token   string   `json:"token_endpoint"`
			Scope   string   `json:"scope"`
		}
		switch {
		case err != nil || json.Unmarshal(body, &said) != nil:
		case said.Servers != nil:
			return fmt.Sprintf("\tscopes=%s, issuer=%s", strings.Join(said.Scopes, " "), path(said.Servers[0]))
		case said.Token != "":
			return "\ttoken_endpoint=" + path(said.Token)
		case said.Scope != "":
			return "\tgranted: " + said.Scope
		}
	}
	return ""
}

// path leaves out the port, which is another one each time.
func path(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Path
}
