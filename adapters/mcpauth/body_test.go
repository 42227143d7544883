package mcpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheBodyIsReadAsWhatItReachesFor(t *testing.T) {
	t.Parallel()
	session := target{kind: aSession}
	for body, want := range map[string][]target{
		`{"method":"tools/call","params":{"name":"a","arguments":{"name":"b"}}}`:                           {{aTool, "a"}},
		`{"params":{"arguments":{"Name":1,"NAME":2},"name":"\u0061"},"id":1,"method":"tools\/call"}`:       {{aTool, "a"}},
		`{"method":"prompts/get","params":{"name":"a","uri":"b"}}`:                                         {{aPrompt, "a"}},
		`{"method":"resources/read","params":{"uri":"u:a"}}`:                                               {{aResource, "u:a"}},
		`{"method":"resources/subscribe","params":{"uri":"u:a"}}`:                                          {{aResource, "u:a"}},
		`{"method":"resources/unsubscribe","params":{"uri":"u:a"}}`:                                        {{aResource, "u:a"}},
		`{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"}}}`:               {{aPrompt, "a"}},
		`{"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"u:{a}"}}}`:          {{aResource, "u:{a}"}},
		`{"method":"completion/complete","params":{"ref":{"type":"ref/other","uri":"u:a"}}}`:               {{}},
		`{"method":"completion/complete","params":{}}`:                                                     {{}},
		`{"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["a","b"]}}}`: {session, {aResource, "a"}, {aResource, "b"}},
		`{"method":"initialize","params":{"Name":1}}`:                                                      {session},
		`{"method":"notifications/cancelled"}`:                                                             {session},
		`{"id":1,"result":{}}`:                                                                             {session},
		`{"method":"own/method","params":[1]}`:                                                             {{aMethod, "own/method"}},
		`[{"method":"ping"},{"method":"tools/call","params":{"name":"a"}}] `:                               {session, {aTool, "a"}},
	} {
		messages, err := readMessages([]byte(body))
		require.NoError(t, err, body)
		var got []target
		for _, m := range messages {
			got = append(got, m.targets()...)
		}
		assert.Equal(t, want, got, body)
	}
}

func TestABodyThatCanBeReadInTwoWaysIsRefused(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		``, ` `, `null`, `1`, `"a"`, `[]`, `[1]`, `[[{"method":"ping"}]]`, `{`, `[{"method":"ping"}`, `{"method":"ping"`,
		`{"method":"ping"}{"method":"ping"}`, `{"method":"ping"} x`, "\xef\xbb\xbf" + `{"method":"ping"}`, `[{"method":"ping"}]{}`,
		`{"method":"ping","method":"ping"}`, `{"method":"ping","m\u0065thod":"tools/call"}`, `{"Method":"ping"}`, `{"method":"ping","METHOD":"x"}`,
		`{"method":"ping","param\u017f":{}}`, `{"method":"ping","ID":1}`, `{"method":null}`, `{"method":1}`, `{"method":""}`, `{"Result":1,"id":1}`,
		`{"method":"tools/call"}`, `{"method":"tools/call","params":null}`, `{"method":"tools/call","params":[]}`,
		`{"method":"tools/call","params":{"name":null}}`, `{"method":"tools/call","params":{"name":["a"]}}`,
		`{"method":"tools/call","params":{"name":"a","name":"b"}}`, `{"method":"tools/call","params":{"name":"a","Name":"b"}}`,
		`{"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}`,
		`{"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}`, `{"method":"ping","params":{"x":[{"y":1,"y":2}]}}`,
		`{"method":"tools/call","params":{"name":"\ud800"}}`, "{\"method\":\"tools/call\",\"params\":{\"name\":\"\xff\"}}",
		`{"method":"completion/complete","params":{"ref":null}}`, `{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","Name":"a"}}}`,
		`{"method":"subscriptions/listen","params":{"notifications":{"ResourceSubscriptions":["a"]}}}`,
		`{"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":"a"}}}`,
		`{"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":[1]}}}`,
		`{"method":"subscriptions/listen","params":{"notifications":[]}}`,
	} {
		_, err := readMessages([]byte(body))
		assert.Error(t, err, body)
	}
	_, err := readMessages([]byte(`{"method":"own","params":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`))
	assert.Error(t, err, "too deep")
}

// seen is an SDK's server that notes what reaches its middleware, and does nothing else.
type seen struct {
	handler http.Handler
	mu      sync.Mutex // guards the fields below
	targets []target
}

func newSeen(tb testing.TB) *seen {
	s := new(seen)
	server := mcp.NewServer(&mcp.Implementation{Name: "seen", Version: "1"}, nil)
	require.NoError(tb, mcp.AddReceivingCustomMethod(server, "own/method",
		func(context.Context, *mcp.ServerSession, *ownParams) (*ownResult, error) { return &ownResult{}, nil }))
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
			targets := []target{{}}
			if m, ok := parsed(method, request.GetParams()); ok {
				targets = m.targets()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.targets = append(s.targets, targets...)
			return nil, context.Canceled
		}
	})
	s.handler = mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
	return s
}

type ownParams struct{ mcp.ParamsBase }
type ownResult struct{ mcp.ResultBase }

// post returns what the SDK's server saw of a body.
func (s *seen) post(body []byte, version string) []target {
	messages, _ := readMessages(body)
	s.mu.Lock()
	s.targets = nil
	s.mu.Unlock()
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {version}}
	if len(messages) == 1 { // the later version wants them too
		r.Header["Mcp-Method"], r.Header["Mcp-Name"] = []string{messages[0].method}, []string{messages[0].name + messages[0].uri}
	}
	s.handler.ServeHTTP(httptest.NewRecorder(), r)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets
}

// meta is what the protocol 2026-07-28 wants in each call.
const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`

// Whatever the reader lets through, the SDK reads as the same method and name.
func FuzzReadMessages(f *testing.F) {
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"n\u0061me":"\ud83d\ude00\ud800","name":"b"}}`,
		`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"a:b"}}]`,
		`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"},"argument":{"name":"x","value":"y"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"a"}}{"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","id":1,"method":"own/method","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{` + meta + `,"notifications":{"resourceSubscriptions":["a:b"]}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + meta + `,"name":"a"}}`,
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}`,
		"\x00{}", `{"jsonrpc":"2.0","id":1,"method":null}`,
	} {
		f.Add([]byte(body))
	}
	server := newSeen(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		messages, err := readMessages(body)
		if err != nil {
			return
		}
		require.True(t, json.Valid(body))
		may := make(map[target]int)
		for _, m := range messages {
			for _, reached := range m.targets() {
				may[reached]++
			}
		}
		for _, version := range []string{"2025-03-26", "2026-07-28"} {
			left := make(map[target]int)
			for reached, n := range may {
				left[reached] = n
			}
			for _, reached := range server.post(body, version) {
				left[reached]--
				require.GreaterOrEqual(t, left[reached], 0, "the SDK reads %q, this package does not", reached)
			}
		}
	})
}

func TestTheSDKSeesTheMessagesOfTheFuzzTest(t *testing.T) {
	t.Parallel()
	server := newSeen(t)
	assert.Equal(t, []target{{aTool, "a"}}, server.post([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}`), "2025-03-26"))
	assert.Equal(t, []target{{kind: aSession}, {aResource, "a:b"}}, server.post([]byte(`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{`+meta+`,"notifications":{"resourceSubscriptions":["a:b"]}}}`), "2026-07-28"))
	assert.Len(t, server.post([]byte(`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"a:b"}}]`), "2025-03-26"), 2)
}
