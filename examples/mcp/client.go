package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// credentials gets tokens for the SDK's client by the client credentials of an app. The
// SDK's own extauth.ClientCredentialsHandler sends no resource indicator (RFC 8707), and
// without one Logto issues no token.
type credentials struct {
	app    m2mauthtest.App
	issuer string // the one that knows the app: nobody else gets its secret
	client *http.Client

	mu       sync.Mutex // guards the fields below
	resource *oauthex.ProtectedResourceMetadata
	tokenURL string
	scopes   []string // that were granted
	source   oauth2.TokenSource
}

// TokenSource implements [auth.OAuthHandler].
func (c *credentials) TokenSource(context.Context) (oauth2.TokenSource, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source, nil
}

// Authorize implements [auth.OAuthHandler]. After a 401 or 403, it gets a token with the
// scopes that the challenge names, besides those it has. The SDK then sends the request
// once more, and no third time.
func (c *credentials) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	challenge, err := bearerChallenge(resp.Header)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resource == nil {
		if err := c.discover(ctx, challenge["resource_metadata"], req.URL.String()); err != nil {
			return err
		}
	}
	needed := strings.Fields(challenge["scope"])
	if len(needed) == 0 {
		needed = c.resource.ScopesSupported
	}
	config := clientcredentials.Config{
		ClientID:       c.app.ID,
		ClientSecret:   c.app.Secret,
		TokenURL:       c.tokenURL,
		Scopes:         union(c.scopes, needed),
		EndpointParams: url.Values{"resource": {c.resource.Resource}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	source := config.TokenSource(context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, c.client))
	token, err := source.Token()
	if err != nil {
		return err
	}
	granted, _ := token.Extra("scope").(string)
	c.source, c.scopes = source, strings.Fields(granted)
	// What is not granted the issuer leaves out without an error.
	for _, scope := range needed {
		if !slices.Contains(c.scopes, scope) {
			return fmt.Errorf("%s does not grant %s to %s", c.issuer, scope, c.app.Name)
		}
	}
	return nil
}

// discover finds out where tokens for the server at the URL are issued.
func (c *credentials) discover(ctx context.Context, metadataURL, url string) error {
	// That fails if the metadata is of another resource than the one which was called.
	resource, err := oauthex.GetProtectedResourceMetadata(ctx, metadataURL, url, c.client)
	if err != nil {
		return err
	}
	if !slices.Contains(resource.AuthorizationServers, c.issuer) {
		return fmt.Errorf("%s takes no tokens of %s", url, c.issuer)
	}
	issuer, err := auth.GetAuthServerMetadata(ctx, c.issuer, c.client)
	if err != nil {
		return err
	}
	if issuer == nil {
		return fmt.Errorf("%s has no metadata", c.issuer)
	}
	c.resource, c.tokenURL = resource, issuer.TokenEndpoint
	return nil
}

// bearerChallenge returns the parameters of the challenge, if a token can meet it.
func bearerChallenge(header http.Header) (map[string]string, error) {
	challenges, err := oauthex.ParseWWWAuthenticate(header.Values("WWW-Authenticate"))
	if err != nil {
		return nil, err
	}
	for _, challenge := range challenges {
		if challenge.Scheme == "bearer" {
			return challenge.Params, nil
		}
	}
	return nil, errors.New("the answer asks for no token")
}

// union returns the scopes of both, each once.
func union(granted, needed []string) []string {
	all := slices.Clone(granted)
	for _, scope := range needed {
		if !slices.Contains(all, scope) {
			all = append(all, scope)
		}
	}
	return all
}
