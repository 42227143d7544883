//go:build unix

package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"unicode"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// decision is what the gateway was asked about, and what it answered.
type decision struct {
	method, target string
	status         int
	identity       []string // in the order of identityFields
}

func (d decision) passes() bool { return d.status >= 200 && d.status < 300 }

// judge remembers decisions.
type judge struct {
	mu   sync.Mutex // guards the field below
	list []decision
}

func (j *judge) add(d decision) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = append(j.list, d)
}

// take returns the decisions since it was called last.
func (j *judge) take() []decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.list
	j.list = nil
	return list
}

// decisionOf reads an answer to nginx, Caddy or Traefik.
func decisionOf(r *http.Response) decision {
	kind := "X-Forwarded-"
	if r.Request.URL.Path == "/nginx" {
		kind = "X-Original-"
	}
	d := decision{method: r.Request.Header.Get(kind + "Method"), target: r.Request.Header.Get(kind + "Uri"), status: r.StatusCode}
	for _, name := range identityFields {
		d.identity = append(d.identity, strings.Join(r.Header.Values(name), "|"))
	}
	return d
}

// decidedByEnvoy reads an answer to Envoy.
func decidedByEnvoy(r *authv3.CheckRequest, answer *authv3.CheckResponse) decision {
	q := r.GetAttributes().GetRequest().GetHttp()
	d := decision{method: q.GetMethod(), target: q.GetPath(), status: int(answer.GetDeniedResponse().GetStatus().GetCode())}
	if ok := answer.GetOkResponse(); ok != nil {
		d.status = http.StatusNoContent
		h := http.Header{}
		mutate(h, ok.GetHeaders())
		for _, name := range identityFields {
			d.identity = append(d.identity, strings.Join(h.Values(name), "|"))
		}
	}
	return d
}

// isIdentity reports whether an API could take a field for one that tells who calls.
func isIdentity(name string) bool {
	name = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '-'
	}, name)
	return slices.ContainsFunc(identityFields, func(f string) bool { return strings.EqualFold(f, name) })
}

// tunnel takes an upgrade, and sends back what comes.
func tunnel(w http.ResponseWriter, protocol string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	_, _ = io.Copy(conn, buffered) // until the caller leaves
}
