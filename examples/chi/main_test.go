package main

import (
	"net/http"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/examples/internal/contract"
	"github.com/m2mauth/m2mauth/examples/internal/shopapi"
	"github.com/m2mauth/m2mauth/m2mauthtest/adaptertest"
)

func TestContract(t *testing.T) { contract.Test(t, routes) }

type guarding = func(http.Handler) http.Handler

func TestSuite(t *testing.T) {
	adaptertest.TestAdapter(t, adaptertest.Adapter[guarding]{
		Package:      "m2mauth",
		Framework:    "chi",
		Require:      (*m2mauth.Guard).Require,
		RequireAny:   (*m2mauth.Guard).RequireAny,
		RequireRule:  (*m2mauth.Guard).RequireRule,
		Authenticate: func(guard *m2mauth.Guard) guarding { return guard.Authenticate },
		Mount:        func(groups []adaptertest.Group[guarding]) http.Handler { return routerOf(groups) },
		Routes: func(guard *m2mauth.Guard, table adaptertest.Table, groups []adaptertest.Group[guarding]) (http.Handler, error) {
			return protect(guard, routerOf(groups), table.Rules, table.Public...)
		},
	})
}

func routerOf(groups []adaptertest.Group[guarding]) *chi.Mux {
	router := chi.NewRouter()
	router.Use(recovered, allowOrigin)
	for _, group := range groups {
		router.Route(group.Prefix, func(r chi.Router) {
			r.Use(group.Middlewares...)
			for _, route := range group.Routes {
				r.With(route.Middlewares...).MethodFunc(route.Method, route.Path, func(w http.ResponseWriter, r *http.Request) {
					status, body := route.Handle(r.Context(), func() (m2mauth.Claims, bool) { return m2mauth.FromContext(r.Context()) })
					shopapi.WriteJSON(w, status, body)
				})
			}
		})
	}
	return router
}

// recovered is what middleware.Recoverer does, without its print of the stack.
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

// allowOrigin is CORS in short; chi has its middleware in another module.
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
