package revocation_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logstore"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

const manyEntries = 100_000

// listOfMany has entries of every kind, none of which is about the app of a test.
func listOfMany(tb testing.TB, issuer string) *revocation.List {
	list := newList(tb, revocation.Options{Issuers: []string{issuer}})
	for i := range manyEntries {
		e := revocation.Entry{By: "bench", Reason: "one of many"}
		id := fmt.Sprintf("%021d", i)
		switch i % 6 {
		case 0:
			e.Client = id
		case 1:
			e.Subject, e.Before = id, time.Now()
		case 2:
			e.Token = id
		case 3:
			e.Organization = id
		case 4:
			e.Organization, e.Client = id, id
		case 5:
			e.Organization, e.Subject = id, id
		}
		_, err := list.Revoke(tb.Context(), e)
		require.NoError(tb, err)
	}
	return list
}

// BenchmarkCheck compares a known token's check without Config.Revoked with that of a list
// of 100,000 entries, which may cost 15 % more. Both take turns, and the least of each
// counts, since other processes only ever add to it.
func BenchmarkCheck(b *testing.B) {
	issuer := m2mauthtest.NewIssuer()
	list := listOfMany(b, issuer.URL())
	rule := m2mauth.AllScopes("read")
	for _, kind := range []string{"machine", "user", "organization"} {
		for _, tokens := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/tokens=%d", kind, tokens), func(b *testing.B) {
				var requests []*http.Request
				for i := range tokens {
					token := m2mauthtest.Token{Audience: testguard.Shop, AppID: fmt.Sprintf("app%018d", i), Scopes: []string{"read"}}
					switch kind {
					case "user":
						token.Claims = map[string]any{"sub": fmt.Sprintf("user%08d", i)}
					case "organization":
						token.OrganizationID = "org000000001"
					}
					requests = append(requests, testguard.RequestWith("Bearer "+issuer.Sign(token)))
				}
				guards := []*m2mauth.Guard{
					testguard.Quiet(b, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }),
					testguard.Quiet(b, issuer, func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens, c.Revoked = true, list.Revoked }),
				}
				least := [2]time.Duration{time.Hour, time.Hour}
				for _, guard := range guards {
					for _, r := range requests {
						_, err := guard.Check(r, rule)
						require.NoError(b, err)
					}
				}
				for b.Loop() {
					for i, guard := range guards {
						begin := time.Now()
						for _, r := range requests {
							if _, err := guard.Check(r, rule); err != nil {
								b.Fatal(err)
							}
						}
						for range 1000/tokens - 1 {
							_, _ = guard.Check(requests[0], rule)
						}
						least[i] = min(least[i], time.Since(begin))
					}
				}
				without, with := float64(least[0].Nanoseconds())/1000, float64(least[1].Nanoseconds())/1000
				b.ReportMetric(without, "ns-without")
				b.ReportMetric(with, "ns-with")
				b.ReportMetric(100*(with/without-1), "%more")
			})
		}
	}
}

// BenchmarkRevoke is one change and its undo, of a list that has 100,000 entries.
func BenchmarkRevoke(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	list := listOfMany(b, "https://issuer.example/oidc")
	runtime.GC()
	runtime.ReadMemStats(&after)
	defer func() { b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/manyEntries, "B/entry") }()
	for i := 0; b.Loop(); i++ {
		e, err := list.Revoke(b.Context(), revocation.Entry{Client: fmt.Sprint("b", i), By: "bench"})
		if err == nil {
			err = list.Undo(b.Context(), e.ID, "bench", "")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is what a replica needs until it is ready: it reads 100,000 entries.
func BenchmarkStart(b *testing.B) {
	log := new(logstore.Log)
	require.NoError(b, revocation.Init(b.Context(), log.Connect(0)))
	writer := newList(b, revocation.Options{Issuers: []string{"https://issuer.example/oidc"}, Store: log.Connect(0)})
	for i := range manyEntries {
		revoke(b, writer, revocation.Entry{Subject: fmt.Sprint(i), Before: time.Now()})
	}
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		list := newList(b, revocation.Options{Store: log.Connect(manyEntries)})
		go func() { _ = list.Run(ctx) }()
		for list.Ready(ctx) != nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}
}
