package mcpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/m2mauth/m2mauth"
)

// Handler returns the handler that serves the MCP server over the streamable HTTP
// transport, behind the guard. It adds a middleware to the server, so call it once for a
// server, and after all your own [mcp.Server.AddReceivingMiddleware]: those that are
// added later run before it and see messages that nobody checked. From then on, the
// server refuses what comes any other way, such as over stdio. options may be nil. A
// negative MaxRequestBodyBytes does not lift the limit: it means the SDK's default, 4 MiB.
// Handler panics if the server is nil.
func (a *Auth) Handler(server *mcp.Server, options *mcp.StreamableHTTPOptions) http.Handler {
	if server == nil {
		panic("mcpauth: Handler: the server is nil")
	}
	server.AddReceivingMiddleware(a.middleware)
	h := &handler{auth: a, limit: mcp.DefaultMaxRequestBodyBytes}
	if options != nil && options.MaxRequestBodyBytes > 0 {
		h.limit = options.MaxRequestBodyBytes
	}
	sdk := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, options)
	// Only this middleware can put a TokenInfo where the SDK looks for it. The guard has
	// decided, so the middleware must not.
	h.next = auth.RequireBearerToken(tokenInfo, &auth.RequireBearerTokenOptions{AllowMissingExpiration: true, ClockSkew: time.Hour})(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(r.Context())
			r.Header = arrivalOf(auth.TokenInfoFromContext(r.Context())).request.Header
			sdk.ServeHTTP(w, r)
		}))
	return h
}

type handler struct {
	auth  *Auth
	limit int64
	next  http.Handler
}

// arrival is the HTTP request that brought a message. The SDK keeps that of a session's
// first message as long as the session.
type arrival struct {
	auth    *Auth
	request *http.Request  // without its body
	claims  m2mauth.Claims // zero only in a dry run

	mu      sync.Mutex // guards the fields below
	decided map[target][]time.Time
}

// takenFor is how long a decision that chose the status is good for the message that
// it was about. A message that the SDK holds back longer is decided again.
const takenFor = time.Second

func (a *arrival) put(t target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.decided == nil {
		a.decided = make(map[target][]time.Time)
	}
	a.decided[t] = append(a.decided[t], time.Now())
}

// take reports whether a message to this very target was let through, for one message
// each.
func (a *arrival) take(t target) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	times := a.decided[t]
	if len(times) == 0 {
		return false
	}
	last := times[len(times)-1]
	if a.decided[t] = times[:len(times)-1]; len(times) == 1 {
		delete(a.decided, t)
	}
	return time.Since(last) < takenFor
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard := h.auth.guard
	claims, err := guard.Check(r, h.auth.session) // before the body: nobody else makes the server read one
	if err != nil {
		guard.WriteError(w, r, err)
		return
	}
	body := r.Body
	r = r.WithContext(r.Context())
	r.Body = http.NoBody
	a := &arrival{auth: h.auth, request: r, claims: claims}
	ctx := context.WithValue(r.Context(), arrivalKey{}, a)
	open := r.Method == http.MethodGet
	if r.Method == http.MethodPost && isJSON(r) {
		read, listens, ok := h.look(w, body, a)
		if !ok {
			return
		}
		body, open = io.NopCloser(bytes.NewReader(read)), listens
	}
	if open {
		var stop func()
		ctx, stop = h.auth.watch(ctx, a.claims)
		defer stop()
	}
	inner := r.WithContext(ctx)
	inner.Body = body
	inner.Header = http.Header{"Authorization": {"Bearer checked"}}
	h.next.ServeHTTP(w, inner)
}

// isJSON reports whether the SDK would read the body. It refuses any other type.
func isJSON(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && mediaType == "application/json"
}

// look reads the body and refuses here what can be refused with a status, by which
// clients ask for another token. The SDK gets the body as it came.
func (h *handler) look(w http.ResponseWriter, from io.ReadCloser, a *arrival) (body []byte, listens, ok bool) {
	guard, r, begin := h.auth.guard, a.request, time.Now()
	refuse := func(err error) ([]byte, bool, bool) {
		guard.WriteError(w, r, err)
		return nil, false, false
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return refuse(badRequest("the body must have no content coding"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, from, h.limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, "the request body is too large", http.StatusRequestEntityTooLarge)
		return nil, false, false
	case err != nil:
		return refuse(badRequest("the body cannot be read"))
	}
	messages, err := readMessages(body)
	if err != nil {
		return refuse(badRequest("the body must be one JSON-RPC message or a batch: no member twice or in another letter case, and nothing after it"))
	}
	if time.Since(begin) >= takenFor { // a body may take as long as the caller likes
		if a.claims, err = guard.Check(r, h.auth.session); err != nil {
			return refuse(err)
		}
	}
	for _, m := range messages {
		listens = listens || m.method == subscriptionsListen
		for _, t := range m.targets() {
			if t.kind != aSession { // that was checked
				if _, err := h.auth.check(r.Context(), r, t); err != nil {
					h.auth.refuseCall(w, r, m.id, err)
					return nil, false, false
				}
			}
			a.put(t)
		}
	}
	return body, listens, true
}

// refuseCall writes the guard's response. Without a body of the user's ErrorHandler, the
// body is a JSON-RPC error for the call: clients such as the SDK's go on then, and give up
// their session after any other body.
func (a *Auth) refuseCall(w http.ResponseWriter, r *http.Request, id string, err error) {
	var e *m2mauth.Error
	if id == "" || !errors.As(err, &e) {
		a.guard.WriteError(w, r, err)
		return
	}
	_, usual := e.Response()
	held := &heldResponse{ResponseWriter: w, status: http.StatusOK}
	a.guard.WriteError(held, r, err)
	body := held.body.Bytes()
	if bytes.Equal(body, usual) {
		if text, err := json.Marshal(rpcError{"2.0", json.RawMessage(id), rpcRefusal{CodeForbidden, refusalText(e), usual}}); err == nil {
			body = text
			w.Header().Del("Content-Length") // the ErrorHandler's, for its own body
		}
	}
	w.WriteHeader(held.status)
	_, _ = w.Write(body) // if this fails, the caller is gone
}

// heldResponse holds the status and the body back.
type heldResponse struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (h *heldResponse) WriteHeader(status int)         { h.status = status }
func (h *heldResponse) Write(part []byte) (int, error) { return h.body.Write(part) }

type rpcError struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Error   rpcRefusal      `json:"error"`
}

type rpcRefusal struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"` // what the response would be without JSON-RPC
}

func badRequest(text string) *m2mauth.Error {
	return &m2mauth.Error{Kind: m2mauth.ErrRequest, Description: text}
}

type arrivalKey struct{}

// extraKey is where the TokenInfo has the arrival.
const extraKey = "github.com/m2mauth/m2mauth/adapters/mcpauth"

// arrivalOf returns nil for a message that did not come through a handler of this package.
func arrivalOf(info *auth.TokenInfo) *arrival {
	if info == nil {
		return nil
	}
	a, _ := info.Extra[extraKey].(*arrival)
	return a
}

// tokenInfo is the [auth.TokenVerifier]. The guard has checked the token.
func tokenInfo(ctx context.Context, _ string, _ *http.Request) (*auth.TokenInfo, error) {
	a := ctx.Value(arrivalKey{}).(*arrival)
	info := &auth.TokenInfo{Extra: map[string]any{extraKey: a}}
	if !a.claims.IsZero() {
		info.Scopes = slices.Collect(a.claims.Scopes().All())
		info.Expiration = a.auth.guard.AcceptedUntil(a.claims)
	}
	if !a.auth.guard.ReportOnly() {
		info.UserID = userID(a.claims)
	}
	return info, nil
}

// userID returns whom a session belongs to, without ambiguity and never empty: the SDK
// binds no session to an empty one.
func userID(c m2mauth.Claims) string {
	kind, subject := "user", c.Subject()
	if c.IsMachine() {
		kind = "machine"
	}
	if subject == "" { // from an issuer that leaves it out
		kind, subject = kind+" without sub", c.ClientID()
	}
	id, _ := json.Marshal([]string{c.Issuer(), kind, subject, c.OrganizationID()}) // strings only: no error
	return string(id)
}
