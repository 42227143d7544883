// Command grpc-client is a machine-to-machine app that calls examples/grpc: it
// gets an access token with its App ID and App Secret (OAuth 2.0 client
// credentials), prints the products, and then new ones as they come.
//
//	ISSUER=https://your-tenant.logto.app/oidc APP_ID=… APP_SECRET=… CA_CERT=cert.pem \
//	go run ./examples/grpc/grpc-client
//
// Environment:
//
//	APP_ID, APP_SECRET   of a machine-to-machine app with the scope read:products
//	ISSUER               the issuer; its token endpoint is ISSUER/token
//	RESOURCE             the API resource; default https://shopping.api
//	SERVER               where the shop is; default localhost:8443
//	CA_CERT              a file of certificates to trust; default those of the system
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/status"

	"github.com/m2mauth/m2mauth/examples/grpc/shoppb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "grpc-client: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string, out io.Writer) error {
	var missing []error
	for _, name := range []string{"ISSUER", "APP_ID", "APP_SECRET"} {
		if getenv(name) == "" {
			missing = append(missing, fmt.Errorf("%s is not set", name))
		}
	}
	if missing != nil {
		return errors.Join(missing...)
	}
	tls := credentials.NewTLS(nil)
	if file := getenv("CA_CERT"); file != "" {
		var err error
		if tls, err = credentials.NewClientTLSFromFile(file, ""); err != nil {
			return fmt.Errorf("CA_CERT: %w", err)
		}
	}
	conn, err := newConn(ctx, cmp.Or(getenv("SERVER"), "localhost:8443"), tls, &clientcredentials.Config{
		ClientID:     getenv("APP_ID"),
		ClientSecret: getenv("APP_SECRET"),
		TokenURL:     strings.TrimSuffix(getenv("ISSUER"), "/") + "/token",
		Scopes:       []string{"read:products"},
		// Which API the token is for (RFC 8707). Logto issues none without it.
		EndpointParams: url.Values{"resource": {cmp.Or(getenv("RESOURCE"), "https://shopping.api")}},
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return watch(ctx, shoppb.NewShopClient(conn), out)
}

// newConn returns a connection that sends an access token with each call. It
// asks for a token with the first one, and for another when that has expired. It
// refuses to send one without TLS.
func newConn(ctx context.Context, target string, tls credentials.TransportCredentials, config *clientcredentials.Config) (*grpc.ClientConn, error) {
	// Detecting the style would send a wrong secret twice.
	config.AuthStyle = oauth2.AuthStyleInHeader
	// Without a timeout, calls would wait for a token endpoint that hangs. The
	// token source uses this client and no context of a call.
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: 10 * time.Second})
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(tls),
		grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: patient{ctx, config.TokenSource(ctx)}}))
}

// patient asks again where a token request failed on its way or by the server's
// fault, such as a connection that was reset: that must not end the watch. What the
// server refuses, such as a wrong secret, it would refuse again.
type patient struct {
	ctx    context.Context
	source oauth2.TokenSource
}

const firstWait, lastWait = 250 * time.Millisecond, 4 * time.Second

func (p patient) Token() (*oauth2.Token, error) {
	for wait := firstWait; ; wait *= 2 {
		token, err := p.source.Token()
		var answer *oauth2.RetrieveError
		refused := errors.As(err, &answer) && answer.Response.StatusCode < 500 && answer.Response.StatusCode != http.StatusTooManyRequests
		if err == nil || refused || wait > lastWait {
			return token, err
		}
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
}

// pause is the least time from one stream to the next, so that a server which ends
// each at once is not flooded.
const pause = time.Second

// watch prints products as they come. The server ends the stream when the token
// expires: watch opens another then, which comes with a new token.
func watch(ctx context.Context, client shoppb.ShopClient, out io.Writer) error {
	known := make(map[int32]bool)
	for {
		next := time.Now().Add(pause)
		stream, err := client.WatchProducts(ctx, &shoppb.WatchProductsRequest{})
		if err != nil {
			return err
		}
		header, err := stream.Header()
		if err != nil {
			return err
		}
		err = printNew(stream, known, out)
		if header == nil || status.Code(err) != codes.Unauthenticated { // without a header the call was refused, as this token would be again
			return err
		}
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// printNew prints the products that are not known yet, until the stream ends.
func printNew(stream grpc.ServerStreamingClient[shoppb.Product], known map[int32]bool, out io.Writer) error {
	for {
		product, err := stream.Recv()
		if err != nil {
			return err
		}
		if !known[product.GetId()] {
			known[product.GetId()] = true
			fmt.Fprintf(out, "%d\t%s\n", product.GetId(), product.GetName())
		}
	}
}
