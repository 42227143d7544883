package adaptertest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

type middleware = func(http.Handler) http.Handler

func TestNetHTTP(t *testing.T) {
	t.Parallel()
	adaptertest.TestAdapter(t, adaptertest.Adapter[middleware]{
		Package:      "m2mauth",
		Require:      (*m2mauth.Guard).Require,
		RequireAny:   (*m2mauth.Guard).RequireAny,
		RequireRule:  (*m2mauth.Guard).RequireRule,
		Authenticate: func(guard *m2mauth.Guard) middleware { return guard.Authenticate },
		Mount: func(groups []adaptertest.Group[middleware]) http.Handler {
			return recovered(allowOrigin(muxOf(groups)))
		},
		Routes: func(guard *m2mauth.Guard, table adaptertest.Table, groups []adaptertest.Group[middleware]) (http.Handler, error) {
			handler, err := guard.Routes(muxOf(groups), table.Rules, table.Public...)
			return recovered(allowOrigin(handler)), err
		},
	})
}

func muxOf(groups []adaptertest.Group[middleware]) *http.ServeMux {
	mux := http.NewServeMux()
	for _, group := range groups {
		for _, route := range group.Routes {
			var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				status, body := route.Handle(r.Context(), func() (m2mauth.Claims, bool) { return m2mauth.FromContext(r.Context()) })
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_ = json.NewEncoder(w).Encode(body)
			})
			for _, m := range slices.Backward(slices.Concat(group.Middlewares, route.Middlewares)) {
				handler = m(handler)
			}
			mux.Handle(route.Method+" "+group.Prefix+route.Path, handler)
		}
	}
	return mux
}

// recovered stands for the recovery that net/http leaves to its users.
func recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// allowOrigin stands for the CORS middleware that net/http leaves to its users.
func allowOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://app.test")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Headers", "Authorization")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
