package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// All callers come from the proxy's address. A caller whose forged tokens fill the queue
// for verification is refused himself, and nobody else: neither a token that is known nor
// one that is new.
func TestAFloodFromOneCallerIsHisOwn(t *testing.T) {
	issuer := m2mauthtest.NewIssuer()
	slow := issuer.KeyIDs()[0]
	issuer.Rotate("EdDSA")
	issuer.Withdraw(slow)
	g := newGateway(t, issuer)
	reader := func() string { return issuer.Token(audience, "read:products") }
	allowed := map[string]func(caller, token string) int{}
	for name, f := range map[string]fields{"nginx": nginxFields, "forward-auth": forwardedFields} {
		allowed[name] = func(caller, token string) int {
			header := http.Header{"Authorization": {"Bearer " + token}}
			header.Set(f.method, "GET")
			header.Set(f.uri, "/products")
			header.Set(f.client, caller)
			return ask(g, "/"+name, header).Code
		}
	}
	allowed["Envoy"] = func(caller, token string) int {
		told := check(toldByEnvoy("GET", "/products", http.Header{"Authorization": {"Bearer " + token}}, true))
		told.Attributes.Source = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: caller},
		}}}
		answer, err := envoyServer{gateway: g}.Check(t.Context(), told)
		if err != nil {
			return 0
		}
		if denied := answer.GetDeniedResponse(); denied != nil {
			return int(denied.GetStatus().GetCode())
		}
		return 204
	}
	known := reader()
	require.Equal(t, 204, allowed["nginx"]("198.51.100.1", known))

	stop := make(chan struct{})
	var flood sync.WaitGroup
	var passed, over atomic.Int64
	signature := strings.LastIndexByte(known, '.') + 1
	forged := func() string { // each another, or they would share one verification
		return known[:signature] + fmt.Sprintf("%016x", rand.Uint64()) + known[signature+16:]
	}
	for n := range 2020 { // the queue has 2000 places
		front := allowed[[]string{"nginx", "Envoy"}[n%2]]
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch front("203.0.113.7", forged()) {
				case 401:
				case 429, 503:
					over.Add(1)
					runtime.Gosched()
				default:
					passed.Add(1)
				}
			}
		})
	}
	defer flood.Wait()
	defer close(stop)
	for over.Load() == 0 { // until the queue is full
		runtime.Gosched()
	}
	for name, ask := range allowed {
		for range 5 {
			assert.Equal(t, 204, ask("198.51.100.1", known), "%s: a known token", name)
			assert.Equal(t, 204, ask("198.51.100.1", reader()), "%s: a new token", name)
		}
	}
	assert.Zero(t, passed.Load(), "forged tokens that were let through")
}
