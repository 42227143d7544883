package issuers_test

import (
	"fmt"
	"log"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/issuers"
)

func ExampleLogto() {
	config, err := issuers.Logto("https://login.shop.example", "https://shopping.api")
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Issuer, guard.Keys().State)
	// Output: https://login.shop.example/oidc none
}

func ExampleAuth0() {
	config, err := issuers.Auth0("shop.eu.auth0.com", "https://shopping.api")
	if err != nil {
		log.Fatal(err)
	}
	config.ScopeClaims = []string{"permissions"} // with RBAC and "Add Permissions in the Access Token"
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Issuer, guard.Keys().State)
	// Output: https://shop.eu.auth0.com/ none
}

func ExampleEntraID() {
	config, err := issuers.EntraID(
		"8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21", // the directory (tenant) ID
		"6e74172b-be56-4843-9ff4-e66a39bb12e3", // the API's application (client) ID
	)
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Issuer, guard.Keys().State)
	// Output: https://login.microsoftonline.com/8b4f9c1e-2a57-4d1b-9c3e-0f6a7d5e4b21/v2.0 none
}

func ExampleKeycloak() {
	config, err := issuers.Keycloak("https://login.shop.example/realms/shop", "https://shopping.api")
	if err != nil {
		log.Fatal(err)
	}
	config.ScopeClaims = []string{"/resource_access/shopping/roles"} // roles of the client shopping
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Issuer, guard.Keys().State)
	// Output: https://login.shop.example/realms/shop none
}

// Any job on GitHub gets a token for your audience: name the owners, by number, and
// in rules the repository and what else its job must show.
func ExampleGitHubActions() {
	config, err := issuers.GitHubActions("https://shopping.api", "65")
	if err != nil {
		log.Fatal(err)
	}
	guard, err := m2mauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	deploy := m2mauth.AllOf(m2mauth.ClientID("74"), m2mauth.HasClaim("environment", "prod"))
	_ = guard.RequireRule(deploy)
	fmt.Println(config.RequiredClaims)
	// Output: map[repository_owner_id:[65]]
}
