// Command mcp is a shop's MCP server, with a tool for readers, one for writers and one
// for administrators. To see a client list and call them, meet a 403 and ask for more,
// with an issuer of its own:
//
//	go run ./examples/mcp -demo
//
// With your Logto, whose API identifier is the URL that MCP clients get, to the last slash:
//
//	ISSUER=https://your-tenant.logto.app/oidc AUDIENCE=http://localhost:3001/ ADDR=localhost:3001 go run ./examples/mcp
//
//	list_products    tokens with read:products
//	create_product   tokens with write:products
//	remove_product   tokens with admin:products
//
// Write includes read, and admin includes both. Everything else that MCP has, such as
// the list of tools, needs any valid token. GET /healthz is public.
//
// Environment:
//
//	ISSUER            the issuer of the tokens, as its discovery document names it
//	AUDIENCE          this server's URL, as registered at the issuer: https, or http
//	                  on a loopback host. Its path is where the server answers
//	ADDR              the address to listen on; default 127.0.0.1:8080
//	JWKS_URL          where the issuer's keys are; default: found by discovery
//	PLAIN_HTTP_HOSTS  hosts that may be asked for keys over http, comma-separated;
//	                  loopback always may
//
// And all settings that [m2mauth.ConfigFromEnv] reads, such as M2MAUTH_ISSUER, which
// goes before ISSUER, and M2MAUTH_INSECURE_HTTP_HOSTS, before PLAIN_HTTP_HOSTS.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
)

func main() {
	show := flag.Bool("demo", false, "run with an issuer and a client of its own, and print what they say to each other")
	flag.Parse()
	err := error(nil)
	if *show {
		err = demo(context.Background(), os.Stdout)
	} else {
		err = run(context.Background(), os.Getenv)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "mcp: cannot run:\n%v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	config, err := shopapi.ConfigFromEnv(getenv)
	if err != nil {
		return err // every mistake in the environment, one a line
	}
	if config.ImpliedScopes == nil {
		config.ImpliedScopes = hierarchy
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		return err // every mistake in the configuration, one a line
	}
	handler, err := routes(guard, config.Audience)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cmp.Or(getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	shopapi.WarmUp(ctx, guard)
	return shopapi.Serve(ctx, listener, handler)
}

// hierarchy has what a scope includes. MCP asks servers to know that: many clients ask
// only for what a challenge names, and their new token would open nothing else.
var hierarchy = map[string][]string{"admin:products": {"write:products"}, "write:products": {"read:products"}}

// routes returns the MCP server at the path of its resource, behind the guard. The error
// names each tool without a rule, and each rule without a tool.
func routes(guard *m2mauth.Guard, resource string) (http.Handler, error) {
	auth, err := mcpauth.New(mcpauth.Config{
		Guard: guard,
		Tools: map[string]m2mauth.Rule{
			"list_products":  m2mauth.AllScopes("read:products"),
			"create_product": m2mauth.AllScopes("write:products"),
			"remove_product": m2mauth.AllScopes("admin:products"),
		},
		// What a client asks for at first. It asks for more when a call needs more.
		Metadata: m2mauth.MetadataConfig{Name: "Shop", Scopes: []string{"read:products"}},
	})
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(resource)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		shopapi.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	path := cmp.Or(at.Path, "/")
	if path[len(path)-1] == '/' {
		path += "{$}" // and nothing below it
	}
	server := newServer()
	auth.Mount(mux, path, server, &mcp.StreamableHTTPOptions{SessionTimeout: time.Hour})
	return unhurried(mux), auth.Validate(server)
}

// unhurried takes the write timeout of the HTTP server from streams, which clients open by
// GET and which last as long as the token. Each write still has its own.
func unhurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			connection := http.NewResponseController(w)
			_ = connection.SetWriteDeadline(time.Time{})
			w = stream{w, connection}
		}
		next.ServeHTTP(w, r)
	})
}

type stream struct {
	http.ResponseWriter
	connection *http.ResponseController
}

// Write ends the connection to a client that does not read.
func (s stream) Write(b []byte) (int, error) {
	_ = s.connection.SetWriteDeadline(time.Now().Add(30 * time.Second))
	return s.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (s stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func newServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "shop", Version: "1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "list_products", Description: "Lists what the shop sells."}, listProducts)
	mcp.AddTool(server, &mcp.Tool{Name: "create_product", Description: "Adds a product."}, createProduct)
	mcp.AddTool(server, &mcp.Tool{Name: "remove_product", Description: "Removes a product."}, removeProduct)
	return server
}

type (
	none    struct{}
	listing struct {
		Products []shopapi.Product `json:"products"`
	}
	newProduct struct {
		Name string `json:"name" jsonschema:"what it is called"`
	}
	reference struct {
		ID int `json:"id" jsonschema:"the ID of the product"`
	}
)

func listProducts(ctx context.Context, _ *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, listing, error) {
	logCall(ctx, "list_products")
	return nil, listing{shopapi.Products()}, nil
}

func createProduct(ctx context.Context, _ *mcp.CallToolRequest, in newProduct) (*mcp.CallToolResult, shopapi.Product, error) {
	logCall(ctx, "create_product")
	return nil, shopapi.Product{ID: shopapi.NewProduct().ID, Name: in.Name}, nil // the shop keeps nothing
}

func removeProduct(ctx context.Context, _ *mcp.CallToolRequest, in reference) (*mcp.CallToolResult, reference, error) {
	logCall(ctx, "remove_product")
	return nil, in, nil
}

// logCall logs whose token came with this very call. The session may have begun with
// another one.
func logCall(ctx context.Context, tool string) {
	claims, _ := mcpauth.Claims(ctx)
	slog.InfoContext(ctx, "tool called", "tool", tool, "app", claims.AppID(), "subject", claims.Subject())
}
