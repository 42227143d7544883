package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// fields are those in which a kind of proxies tells of the original request.
type fields struct{ method, uri, client string }

var (
	nginxFields     = fields{"X-Original-Method", "X-Original-URI", "X-Real-IP"}
	forwardedFields = fields{"X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-For"} // Traefik, Caddy

	requestFields = []string{nginxFields.method, nginxFields.uri, forwardedFields.method, forwardedFields.uri}
)

// bodyField holds the body of a refusal for nginx, which reads no body of an
// answer to auth_request: nginx.conf builds the caller's answer from it.
const bodyField = "X-Auth-Body"

// routes returns what proxies and probes ask. Each kind of proxies has a path of
// its own, so that no caller chooses in which fields the request is looked for.
func (g *gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nginx", func(w http.ResponseWriter, r *http.Request) {
		no := g.answer(w, r, nginxFields)
		if no == nil {
			return
		}
		w.Header().Set(bodyField, strings.TrimSpace(string(no.body)))
		no.write(w)
	})
	mux.HandleFunc("GET /forward-auth", func(w http.ResponseWriter, r *http.Request) {
		if no := g.answer(w, r, forwardedFields); no != nil {
			no.write(w)
		}
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if list := g.current.Load().list; list != nil && list.Ready(r.Context()) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	return mux
}

// answer lets the request through that the fields tell of, or returns the refusal.
func (g *gateway) answer(w http.ResponseWriter, r *http.Request, f fields) *refusal {
	q, err := f.question(r)
	if err != nil {
		return g.refused(r.Context(), err)
	}
	yes, no := g.decide(r.Context(), q)
	if no != nil {
		return no
	}
	for name, values := range yes.identity {
		w.Header()[name] = values
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (no *refusal) write(w http.ResponseWriter) {
	for name, values := range no.header {
		w.Header()[name] = values
	}
	w.WriteHeader(no.status)
	_, _ = w.Write(no.body) // the proxy is gone: nobody is left to tell
}

// question takes the original request out of the fields. Each must be there
// once, and fields of the other kind of proxies must not say otherwise.
func (f fields) question(r *http.Request) (q question, err error) {
	for name := range r.Header {
		if name != dashed(name) && isSpelling(name, requestFields) {
			return q, ambiguous("the request has a field that tells of the original request, spelled with other signs than dashes")
		}
	}
	if q.method, err = one(r.Header, f.method); err != nil {
		return q, err
	}
	if q.target, err = one(r.Header, f.uri); err != nil {
		return q, err
	}
	for _, other := range []fields{nginxFields, forwardedFields} {
		if differs(r.Header.Values(other.method), q.method) || differs(r.Header.Values(other.uri), q.target) {
			return q, ambiguous("two kinds of fields tell of the original request, and they disagree")
		}
	}
	q.header, q.client = r.Header, f.clientOf(r)
	return q, nil
}

func one(header http.Header, name string) (string, error) {
	values := header.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", ambiguous("the proxy must tell of the original request in one " + name + " field")
	}
	return values[0], nil
}

func differs(values []string, want string) bool {
	for _, v := range values {
		if v != want {
			return true
		}
	}
	return false
}

// clientOf returns the address that the proxy wrote last, or that of the proxy.
// It is for the fairness of the guard's queue alone.
func (f fields) clientOf(r *http.Request) string {
	values := r.Header.Values(f.client)
	if len(values) == 0 {
		return r.RemoteAddr
	}
	last := values[len(values)-1]
	last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if _, err := netip.ParseAddr(last); err != nil {
		return r.RemoteAddr
	}
	return net.JoinHostPort(last, "0")
}
