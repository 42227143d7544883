package ginauth_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/ginauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// A public route, and two that require a scope.
func Example() {
	issuer := m2mauthtest.NewIssuer() // in production: Config.Issuer and Config.Audience
	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
	if err != nil {
		log.Fatal(err)
	}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.GET("/healthz", func(c *gin.Context) { c.Status(http.StatusOK) })
	router.GET("/products", ginauth.Require(guard, "read:products"), func(c *gin.Context) {
		claims, _ := ginauth.Claims(c)
		fmt.Println("list products, app:", claims.AppID())
	})
	router.POST("/products", ginauth.Require(guard, "write:products"), func(c *gin.Context) {
		c.Status(http.StatusCreated)
	})

	call := func(method, path, token string) {
		r := httptest.NewRequest(method, path, nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		fmt.Println(method, path, w.Code)
	}
	call("GET", "/healthz", "")
	call("GET", "/products", "")
	call("GET", "/products", issuer.Sign(m2mauthtest.Token{
		AppID:    "my-app",
		Audience: "https://shopping.api",
		Scopes:   []string{"read:products"},
	}))
	call("POST", "/products", issuer.Token("https://shopping.api", "read:products"))
	// Output:
	// GET /healthz 200
	// GET /products 401
	// list products, app: my-app
	// GET /products 200
	// POST /products 403
}
