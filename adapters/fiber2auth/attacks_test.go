package fiber2auth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/m2mauth/m2mauth/adapters/fiber2auth"
	"github.com/m2mauth/m2mauth/internal/test/attacks"
)

// entry sends by a function, to a route that hands out its claims.
func entry(send func(*fiber.App, *http.Request) (status int, header http.Header, body []byte)) attacks.Entry {
	return attacks.Entry{
		Skip: map[string]string{
			"token-crlf-at-the-end": "a line break ends the field on the wire, and the token is good",
			"token-nul-at-the-end":  "fasthttp itself refuses the request",
		},
		Send: func(_ *testing.T, r attacks.Request) (answer attacks.Answer) {
			app := fiber.New(fiber.Config{ReadBufferSize: 16 << 10})
			app.All("/products", fiber2auth.RequireRule(r.Guard, r.Rule), func(c *fiber.Ctx) error {
				answer.Claims, _ = fiber2auth.Claims(c)
				return nil
			})
			app.Handler() // builds the routes
			status, header, body := send(app, r.HTTP)
			if answer.Status = status; answer.Claims.IsZero() {
				answer.Header, answer.Body = header, body
			}
			return answer
		},
	}
}

func sendOverTheWire(app *fiber.App, r *http.Request) (status int, header http.Header, body []byte) {
	w := httptest.NewRecorder()
	overTheWire{app}.ServeHTTP(w, r)
	return w.Code, w.Header(), w.Body.Bytes()
}

// sendParsed leaves out the connection, which takes most of the time.
func sendParsed(app *fiber.App, r *http.Request) (status int, header http.Header, body []byte) {
	c := &fasthttp.RequestCtx{}
	c.Request.Header.SetMethod(r.Method)
	c.Request.SetRequestURI(r.URL.RequestURI())
	for name, values := range r.Header {
		for _, value := range values {
			c.Request.Header.Add(name, value)
		}
	}
	app.Handler()(c)
	header = http.Header{}
	for name, value := range c.Response.Header.All() {
		header.Add(string(name), string(value))
	}
	return c.Response.StatusCode(), header, c.Response.Body()
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	send(t, fiber.New(), "GET", "/", "") // starts fasthttp's clock outside of the attacks' bubbles
	attacks.Run(t, entry(sendOverTheWire))
}

func TestAttackFamilies(t *testing.T) {
	t.Parallel()
	attacks.RunFamilies(t, entry(sendParsed))
}
