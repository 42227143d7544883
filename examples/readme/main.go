package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/m2mauth/m2mauth"
)

func main() {
	guard, err := m2mauth.New(m2mauth.Config{
		Issuer:   os.Getenv("ISSUER"),   // https://your.logto.endpoint/oidc
		Audience: os.Getenv("AUDIENCE"), // the API identifier in Logto, such as https://shopping.api
	})
	if err != nil {
		log.Fatal(err) // names every mistake in the Config at once
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz) // no guard: public
	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
	mux.Handle("POST /products", guard.Require("write:products")(http.HandlerFunc(create)))

	go func() { // optional: fetch the issuer's keys before the first request needs them
		if err := guard.Warm(context.Background()); err != nil {
			log.Print(err)
		}
	}()

	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	log.Fatal(server.Serve(listener))
}

func healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

func list(w http.ResponseWriter, r *http.Request) {
	claims, _ := m2mauth.FromContext(r.Context())
	fmt.Fprintf(w, "products for the app %s\n", claims.AppID())
}

func create(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }
