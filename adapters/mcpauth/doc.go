// Package mcpauth puts an [m2mauth.Guard] in front of a Model Context Protocol server of
// the official SDK, served over its streamable HTTP transport. Every tool, resource and
// prompt has a rule. One without a rule is rejected:
//
//	auth, err := mcpauth.New(mcpauth.Config{
//		Guard: guard,
//		Tools: map[string]m2mauth.Rule{
//			"list_products":  m2mauth.AllScopes("read:products"),
//			"create_product": m2mauth.AllScopes("write:products"),
//		},
//	})
//	auth.Mount(mux, "/mcp", server, nil) // with the metadata that clients start from
//	err = auth.Validate(server)          // names every tool without a rule, and every rule without a tool
//
// Handlers find the claims with [Claims]. They are those of the very request that brought
// the message: the context of the SDK is that of the session's first request.
//
// # What is checked, and where
//
// Every HTTP request must carry a token that meets Config.Session. Then each message is
// decided in a middleware of the server, on what the SDK parsed. What needs a rule, and
// what needs a token only, is listed at [Config]. Methods that are in neither list are
// refused.
//
// So that clients ask for a token with more scopes, refusals must be HTTP responses: 401,
// or 403 with insufficient_scope, the scopes and resource_metadata. For that alone, the
// handler looks at the body before the SDK does. The body of such a 403 is a JSON-RPC error
// with [CodeForbidden], unless the guard has an ErrorHandler. A batch is refused as a whole. A
// message that only the middleware refuses, since its token was revoked while it waited
// longer than a second, gets a JSON-RPC error with [CodeForbidden].
//
// A body that two readers could read in two ways gets 400: members that occur twice or
// in another letter case, a content coding, or a second JSON value.
//
// Config.OnDecision of the guard is called once for each HTTP request with the rule of
// the session, again after a body that took longer than a second, and once for each rule
// of each message that needs more.
//
// # Sessions and streams
//
// A session belongs to the issuer, kind, subject and organization of the token that began
// it: the SDK refuses the session to anybody else, with 403. A GET and a
// subscriptions/listen end when their token expires, or within a second or two after it
// was revoked. Any other call goes on to its end.
//
// # Traps
//
//   - Your own middlewares that are added after [Auth.Handler] see unchecked messages.
//   - A server with a guard refuses messages from other transports. Make another server
//     for those.
//   - Make the guard once, when the program starts.
//   - A tool that calls another API must not pass the caller's token on: it was issued for
//     this one.
//   - While [m2mauth.Guard.ReportOnly] is true, what has no rule is served, sessions
//     belong to nobody, and a session that began then belongs to nobody until it ends.
//   - A subscription lasts as long as its session, whatever later tokens open. What it
//     tells is that a resource changed, not the resource. With an [mcp.EventStore], any
//     token of the session's caller reads its earlier responses again.
//   - Handlers find the header of their HTTP request in [mcp.RequestExtra], the token
//     included. Do not log it.
//   - Browsers ask with OPTIONS, without a token, before they send a request from another
//     origin. Handle that before this handler, if they may.
package mcpauth
