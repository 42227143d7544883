package mcpauth

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/m2mauth/m2mauth"
)

// CodeForbidden is the code of the JSON-RPC error for a refused message: in the body of a
// 403, or alone where it was too late for a status. See the package's documentation.
const CodeForbidden = -32043

// middleware decides about each message on what the SDK parsed, and on the token of the
// HTTP request that brought it. The context is that of the session's first request, so
// its claims are hidden.
func (a *Auth) middleware(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		if ctx.Value(validating{}) == a && validateMay[method] {
			return next(ctx, method, request)
		}
		var arrived *arrival
		if extra := request.GetExtra(); extra != nil {
			arrived = arrivalOf(extra.TokenInfo)
		}
		if arrived == nil || arrived.auth != a {
			return nil, &jsonrpc.Error{Code: CodeForbidden, Message: "this server takes messages through its guard alone"}
		}
		claims, err := a.decide(ctx, arrived, method, request.GetParams())
		if err != nil {
			return nil, err
		}
		ctx = m2mauth.NewContext(ctx, claims)
		result, err := next(ctx, method, request)
		if err != nil {
			return nil, err
		}
		if read, ok := result.(*mcp.ReadResourceResult); ok && read != nil {
			private := *read
			private.CacheScope = "private" // the SDK's default would let a cache show it to anybody
			result = &private
		}
		if a.hide {
			return a.shown(ctx, arrived, claims, result)
		}
		return result, nil
	}
}

// decide checks all that a message reaches for.
func (a *Auth) decide(ctx context.Context, arrived *arrival, method string, params mcp.Params) (claims m2mauth.Claims, err error) {
	defer recoverInto(ctx, &err)
	targets := []target{{}}
	if m, ok := parsed(method, params); ok {
		targets = m.targets()
	}
	claims = arrived.claims
	for _, t := range targets {
		if arrived.take(t) {
			continue
		}
		if claims, err = a.check(ctx, arrived.request, t); err != nil {
			return m2mauth.Claims{}, refusal(err)
		}
	}
	return claims, nil
}

// recoverInto makes an error of a panic in a user's function: the SDK calls handlers
// where nobody recovers.
func recoverInto(ctx context.Context, err *error) {
	if v := recover(); v != nil {
		slog.ErrorContext(ctx, "mcpauth: a function of a rule panicked", "panic", v)
		*err = &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: "the call could not be checked"}
	}
}

// refusal returns what the caller sees of a guard's error.
func refusal(err error) error {
	var e *m2mauth.Error
	if !errors.As(err, &e) {
		return &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: "the call could not be checked"}
	}
	return &jsonrpc.Error{Code: CodeForbidden, Message: refusalText(e)}
}

func refusalText(e *m2mauth.Error) string { return e.Code + ": " + e.Description }

// shown returns a list without what the token does not open.
func (a *Auth) shown(ctx context.Context, arrived *arrival, claims m2mauth.Claims, result mcp.Result) (_ mcp.Result, err error) {
	defer recoverInto(ctx, &err)
	r := arrived.request.WithContext(ctx)
	hidden := func(k kind, name string) bool {
		r.Pattern = request{r: arrived.request, target: target{k, name}}.Pattern() // as a rule of a call sees it
		return slices.ContainsFunc(a.rulesFor(target{k, name}), func(rule m2mauth.Rule) bool { return !a.guard.Opens(r, claims, rule) })
	}
	// A copy, since the list that a middleware of the user's returns may be shared.
	switch list := result.(type) {
	case *mcp.ListToolsResult:
		shown := *list
		shown.CacheScope = "private"
		shown.Tools = without(list.Tools, func(t *mcp.Tool) bool { return hidden(aTool, t.Name) })
		return &shown, nil
	case *mcp.ListPromptsResult:
		shown := *list
		shown.CacheScope = "private"
		shown.Prompts = without(list.Prompts, func(p *mcp.Prompt) bool { return hidden(aPrompt, p.Name) })
		return &shown, nil
	case *mcp.ListResourcesResult:
		shown := *list
		shown.CacheScope = "private"
		shown.Resources = without(list.Resources, func(r *mcp.Resource) bool { return hidden(aResource, r.URI) })
		return &shown, nil
	case *mcp.ListResourceTemplatesResult:
		shown := *list
		shown.CacheScope = "private"
		shown.ResourceTemplates = without(list.ResourceTemplates, func(t *mcp.ResourceTemplate) bool { return hidden(aResource, t.URITemplate) })
		return &shown, nil
	}
	return result, nil
}

// without returns a new list: never nil, which JSON would show as null.
func without[T any](list []T, hidden func(T) bool) []T {
	shown := make([]T, 0, len(list))
	for _, one := range list {
		if !hidden(one) {
			shown = append(shown, one)
		}
	}
	return shown
}
