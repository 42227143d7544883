package examples_test

import (
	"context"
	"fmt"
	"log"
	"net/url"
	"os"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// The caller's snippet of docs/logto.md. It is compiled and not run: it needs an
// issuer. Command client is the whole program.
func Example() {
	ctx := context.Background()

	config := clientcredentials.Config{
		ClientID:       os.Getenv("APP_ID"),
		ClientSecret:   os.Getenv("APP_SECRET"),
		TokenURL:       "https://your.logto.endpoint/oidc/token",
		Scopes:         []string{"read:products"},
		EndpointParams: url.Values{"resource": {"https://shopping.api"}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	client := config.Client(ctx) // make it once: it keeps the token
	answer, err := client.Get("http://127.0.0.1:8080/products")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
}
