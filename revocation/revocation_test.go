package revocation_test

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/logs"
	"github.com/m2mauth/m2mauth/internal/test/testguard"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
)

// newList makes a list that logs nothing.
func newList(tb testing.TB, o revocation.Options) *revocation.List {
	tb.Helper()
	if o.MaxTokenLifetime == 0 {
		o.MaxTokenLifetime = time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	list, err := revocation.New(o)
	require.NoError(tb, err)
	return list
}

// claimsOf returns the claims of a token, as the guard gives them to a List.
func claimsOf(tb testing.TB, issuer *m2mauthtest.Issuer, token m2mauthtest.Token) m2mauth.Claims {
	tb.Helper()
	token.Audience = testguard.Shop
	allow := func(c *m2mauth.Config) {
		c.InsecureAllowOrganizationTokens, c.TokenTypes = true, []string{"at+jwt", "JWT"} // one without iat is none of RFC 9068
	}
	claims, err := testguard.Quiet(tb, issuer, allow).Verify(tb.Context(), issuer.Sign(token))
	require.NoError(tb, err)
	return claims
}

func isRevoked(tb testing.TB, list *revocation.List, claims m2mauth.Claims) bool {
	tb.Helper()
	revoked, err := list.Revoked(tb.Context(), claims)
	require.NoError(tb, err)
	return revoked
}

func revoke(tb testing.TB, list *revocation.List, e revocation.Entry) revocation.Entry {
	tb.Helper()
	if e.By == "" {
		e.By = "ops"
	}
	e, err := list.Revoke(tb.Context(), e)
	require.NoError(tb, err)
	return e
}

const elsewhere = "https://other.example/oidc"

func TestAnEntryRevokesTheTokensThatItSelects(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	with := func(sub, jti, organization string) m2mauth.Claims {
		return claimsOf(t, issuer, m2mauthtest.Token{AppID: "app", OrganizationID: organization, Claims: map[string]any{"sub": sub, "jti": jti}})
	}
	tokens := map[string]m2mauth.Claims{
		"machine":              with("app", "one", ""),
		"machine in acme":      with("app", "two", "acme"),
		"machine in other":     with("app", "three", "other"),
		"user":                 with("user", "four", ""),
		"user in acme":         with("user", "five", "acme"),
		"other user in acme":   with("other", "six", "acme"),
		"other app's":          claimsOf(t, issuer, m2mauthtest.Token{AppID: "another", Claims: map[string]any{"jti": "seven"}}),
		"other app's in acme":  claimsOf(t, issuer, m2mauthtest.Token{AppID: "another", OrganizationID: "acme", Claims: map[string]any{"jti": "seven"}}),
		"without jti":          claimsOf(t, issuer, m2mauthtest.Token{AppID: "another", Header: map[string]any{"typ": "JWT"}, Claims: map[string]any{"jti": nil}}),
		"a user with app's ID": claimsOf(t, issuer, m2mauthtest.Token{AppID: "another", Claims: map[string]any{"sub": "app"}}),
	}
	for name, row := range map[string]struct {
		entry revocation.Entry
		want  []string
	}{
		"a token":                 {revocation.Entry{Token: "one"}, []string{"machine"}},
		"a client":                {revocation.Entry{Client: "app"}, []string{"machine", "machine in acme", "machine in other", "user", "user in acme", "other user in acme"}},
		"a subject":               {revocation.Entry{Subject: "user"}, []string{"user", "user in acme"}},
		"a machine as a subject":  {revocation.Entry{Subject: "app"}, []string{"machine", "machine in acme", "machine in other", "a user with app's ID"}},
		"an organization":         {revocation.Entry{Organization: "acme"}, []string{"machine in acme", "user in acme", "other user in acme", "other app's in acme"}},
		"a client as a member":    {revocation.Entry{Organization: "acme", Client: "app"}, []string{"machine in acme", "user in acme", "other user in acme"}},
		"a subject as a member":   {revocation.Entry{Organization: "acme", Subject: "user"}, []string{"user in acme"}},
		"nothing in other case":   {revocation.Entry{Client: "App"}, nil},
		"nothing by a space":      {revocation.Entry{Client: "app "}, nil},
		"nothing of other names":  {revocation.Entry{Organization: "app"}, nil},
		"nothing of other fields": {revocation.Entry{Token: "app"}, nil},
		"nothing elsewhere":       {revocation.Entry{Client: "app", Issuers: []string{elsewhere}}, nil},
		"all":                     {revocation.Entry{All: true}, slices.Collect(maps.Keys(tokens))},
		"all, of two issuers":     {revocation.Entry{All: true, Issuers: []string{elsewhere, issuer.URL()}}, slices.Collect(maps.Keys(tokens))},
		"all elsewhere":           {revocation.Entry{All: true, Issuers: []string{elsewhere}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, before := range []time.Time{{}, time.Now()} {
				list := newList(t, revocation.Options{})
				e := row.entry
				if e.Before = before; e.Issuers == nil {
					e.Issuers = []string{issuer.URL()}
				}
				e = revoke(t, list, e)
				for name, claims := range tokens {
					assert.Equal(t, slices.Contains(row.want, name), isRevoked(t, list, claims), "%s, before %v", name, before)
				}
				assert.False(t, isRevoked(t, list, m2mauth.Claims{}), "the claims of no token")
				require.NoError(t, list.Undo(t.Context(), e.ID, "ops", ""))
				for name, claims := range tokens {
					assert.False(t, isRevoked(t, list, claims), "%s, undone", name)
				}
			}
		})
	}
}

// Each row is a token's iat and exp beside the time that an entry names.
// Client ID Metadata Documents make URLs of up to 2,048 characters the IDs of clients. Who
// revokes may be such a client too.
func TestAClientWhoseIDIsALongURLIsRevoked(t *testing.T) {
	t.Parallel()
	client := "https://" + strings.Repeat("a", 2040)
	issuer := m2mauthtest.NewIssuer()
	issuers := []string{issuer.URL()}
	for i := range 7 {
		issuers = append(issuers, fmt.Sprintf("https://%d.example/%s", i, strings.Repeat("x", 300)))
	}
	list := newList(t, revocation.Options{})
	entry := revoke(t, list, revocation.Entry{Client: client, Organization: strings.Repeat("o", 100), Issuers: issuers, By: client, Reason: strings.Repeat("r", 500)})
	inOrganization := m2mauthtest.Token{AppID: client, OrganizationID: strings.Repeat("o", 100)}
	assert.True(t, isRevoked(t, list, claimsOf(t, issuer, inOrganization)))
	assert.False(t, isRevoked(t, list, claimsOf(t, issuer, m2mauthtest.Token{AppID: client})))
	inOrganization.AppID = client[:2047]
	assert.False(t, isRevoked(t, list, claimsOf(t, issuer, inOrganization)))
	require.NoError(t, list.Undo(t.Context(), entry.ID, client, ""))
}

func TestTokensIssuedBeforeATimeAreRevoked(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	second := time.Now().Truncate(time.Second).Add(-2 * time.Minute)
	for name, row := range map[string]struct {
		leeway   time.Duration
		iat      any
		lifetime time.Duration
		want     bool
	}{
		"issued before":                              {0, second.Add(-time.Minute), time.Hour, true},
		"issued within the leeway":                   {0, second.Add(29 * time.Second), time.Hour, true},
		"issued at the leeway":                       {0, second.Add(30 * time.Second), time.Hour, false},
		"issued before, without leeway":              {-1, second.Add(-time.Second), time.Hour, true},
		"issued at that second, without leeway":      {-1, second, time.Hour, false},
		"issued within a minute's leeway":            {time.Minute, second.Add(59 * time.Second), time.Hour, true},
		"issued after a minute's leeway":             {time.Minute, second.Add(time.Minute), time.Hour, false},
		"issued later, but alive for too long":       {0, second.Add(40 * time.Second), time.Hour + time.Second, true},
		"issued later, alive for as long as allowed": {0, second.Add(40 * time.Second), time.Hour, false},
		"without iat":                                {0, nil, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := map[string]any{"iat": row.iat, "exp": second.Add(row.lifetime).Unix()}
			if iat, ok := row.iat.(time.Time); ok {
				claims["iat"], claims["exp"] = iat.Unix(), iat.Add(row.lifetime).Unix()
			}
			token := claimsOf(t, issuer, m2mauthtest.Token{AppID: "app", Header: map[string]any{"typ": "JWT"}, Claims: claims})
			list := newList(t, revocation.Options{Leeway: row.leeway})
			revoke(t, list, revocation.Entry{Issuers: []string{issuer.URL()}, Client: "app", Before: second})
			assert.Equal(t, row.want, isRevoked(t, list, token))
			revoke(t, list, revocation.Entry{Issuers: []string{issuer.URL()}, Client: "app", Before: second.Add(-time.Hour)})
			assert.Equal(t, row.want, isRevoked(t, list, token), "an earlier time adds nothing")
			block := revoke(t, list, revocation.Entry{Issuers: []string{issuer.URL()}, Client: "app"})
			assert.True(t, isRevoked(t, list, token), "until undone")
			require.NoError(t, list.Undo(t.Context(), block.ID, "ops", ""))
			assert.Equal(t, row.want, isRevoked(t, list, token), "what else there is stays")
		})
	}
}

func TestAnEntryEndsWhenNoTokenOfItsTimeCanBeAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := newList(t, revocation.Options{Issuers: []string{"i"}, MaxEntries: 4})
		forever := revoke(t, list, revocation.Entry{Client: "forever"})
		time.Sleep(time.Second)
		until := revoke(t, list, revocation.Entry{Client: "app", Before: time.Now()})
		end := time.Now().Add(30*time.Second + time.Hour + 10*time.Minute)
		testguard.SleepUntil(end.Add(-time.Nanosecond))
		assert.Equal(t, []revocation.Entry{forever, until}, list.All())
		testguard.SleepUntil(end)
		assert.Equal(t, []revocation.Entry{forever}, list.All())
		for i := range 3 { // the room is free again
			revoke(t, list, revocation.Entry{Client: fmt.Sprint("app", i)})
		}
	})
}

func TestEveryMistakeInAnEntryIsNamed(t *testing.T) {
	t.Parallel()
	list := newList(t, revocation.Options{Issuers: []string{"https://a.example", "https://b.example"}})
	long := strings.Repeat("x", 2049)
	for name, row := range map[string]struct {
		entry revocation.Entry
		want  []string
	}{
		"no selector":                       {revocation.Entry{By: "ops"}, []string{"selects no tokens"}},
		"an issuer that is none of ours":    {revocation.Entry{By: "ops", Client: "a", Issuers: []string{"https://a.example/"}}, []string{"not among Options.Issuers"}},
		"an empty issuer":                   {revocation.Entry{By: "ops", Client: "a", Issuers: []string{""}}, []string{"Issuers: one is empty"}},
		"an issuer twice":                   {revocation.Entry{By: "ops", Client: "a", Issuers: []string{"https://a.example", "https://a.example"}}, []string{"named twice"}},
		"too many issuers":                  {revocation.Entry{By: "ops", Client: "a", Issuers: strings.Split("a b c d e f g h i", " ")}, []string{"9 are more than 8"}},
		"client and subject":                {revocation.Entry{By: "ops", Client: "a", Subject: "b"}, []string{"Client, Subject together"}},
		"client and token":                  {revocation.Entry{By: "ops", Client: "a", Token: "b"}, []string{"Token, Client together"}},
		"organization, client and subject":  {revocation.Entry{By: "ops", Client: "a", Subject: "b", Organization: "c"}, []string{"Client, Subject, Organization together"}},
		"organization and token":            {revocation.Entry{By: "ops", Token: "b", Organization: "c"}, []string{"Token, Organization together"}},
		"all and a client":                  {revocation.Entry{By: "ops", Client: "a", All: true}, []string{"Client, All together"}},
		"nobody":                            {revocation.Entry{Client: "a"}, []string{"By: required"}},
		"long values":                       {revocation.Entry{By: long, Client: long, Reason: strings.Repeat("x", 1025)}, []string{"Client: 2049 bytes", "By: 2049 bytes", "Reason: 1025 bytes"}},
		"a control character":               {revocation.Entry{By: "ops", Client: "a", Reason: "two\nlines"}, []string{"Reason: not UTF-8"}},
		"not UTF-8":                         {revocation.Entry{By: "ops", Client: "\xff"}, []string{"Client: not UTF-8"}},
		"a time far ahead":                  {revocation.Entry{By: "ops", Client: "a", Before: time.Now().Add(11 * time.Minute)}, []string{"Before: more than 10m0s ahead"}},
		"milliseconds taken for seconds":    {revocation.Entry{By: "ops", Client: "a", Before: time.Unix(1_700_000_000_000, 0)}, []string{"Before: the year 55"}},
		"a time so old that it has no use":  {revocation.Entry{By: "ops", Client: "a", Before: time.Now().Add(-71 * time.Minute)}, []string{"no token that was issued before it can be alive"}},
		"a webhook without a time":          {revocation.Entry{By: "logto", Client: "a", Webhook: true}, []string{"Before: required"}},
		"several mistakes":                  {revocation.Entry{Client: long}, []string{"Client: 2049 bytes", "By: required"}},
		"nothing alone, but long in all":    {revocation.Entry{By: strings.Repeat(`"`, 2048), Client: strings.Repeat(`"`, 2048), Reason: strings.Repeat(`"`, 1024)}, []string{"bytes in all"}},
		"a time ahead that the clocks make": {revocation.Entry{By: "ops", Client: "a", Before: time.Now().Add(9 * time.Minute)}, nil},
		"a time just of use":                {revocation.Entry{By: "ops", Client: "a", Before: time.Now().Add(-70 * time.Minute)}, nil},
		"a member":                          {revocation.Entry{By: "ops", Client: "a", Organization: "b"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := list.Revoke(t.Context(), row.entry)
			if row.want == nil {
				require.NoError(t, err)
				assert.Equal(t, []string{"https://a.example", "https://b.example"}, e.Issuers)
				return
			}
			require.ErrorIs(t, err, revocation.ErrInvalid)
			for _, want := range row.want {
				assert.ErrorContains(t, err, want)
			}
			assert.Zero(t, e)
		})
	}
	assert.Len(t, list.All(), 3)
	_, err := newList(t, revocation.Options{}).Revoke(t.Context(), revocation.Entry{By: "ops", Client: "a"})
	assert.ErrorContains(t, err, "Issuers: at least one is required")
}

func TestNewNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := revocation.New(revocation.Options{
		Leeway: 11 * time.Minute, StaleFor: 8 * 24 * time.Hour, MaxEntries: 3, Issuers: []string{"a", ""},
	})
	for _, want := range []string{"Leeway: 11m0s", "StaleFor: 192h0m0s", "MaxTokenLifetime: 0s", "MaxEntries: 3", "Issuers: one is empty"} {
		assert.ErrorContains(t, err, want)
	}
	_, err = revocation.New(revocation.Options{Leeway: 30, MaxTokenLifetime: 3600, Issuers: []string{"a", "a"}, MaxEntries: 10_000_001})
	for _, want := range []string{"did you mean 30 * time.Second?", "MaxTokenLifetime: 3.6µs", "named twice", "MaxEntries: 10000001"} {
		assert.ErrorContains(t, err, want)
	}
	_, err = revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Issuers: strings.Split("a b c d e f g h i", " ")})
	assert.ErrorContains(t, err, "9 are more than 8")
}

func TestUndoEndsAnEntry(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	claims := claimsOf(t, issuer, m2mauthtest.Token{AppID: "app"})
	list := newList(t, revocation.Options{Issuers: []string{issuer.URL()}})
	first, second := revoke(t, list, revocation.Entry{Client: "app"}), revoke(t, list, revocation.Entry{Client: "app"})
	require.ErrorIs(t, list.Undo(t.Context(), "unknown", "ops", ""), revocation.ErrNotFound)
	require.ErrorIs(t, list.Undo(t.Context(), first.ID, "", ""), revocation.ErrInvalid)
	require.ErrorIs(t, list.Undo(t.Context(), first.ID, "ops", strings.Repeat("x", 1025)), revocation.ErrInvalid)
	require.NoError(t, list.Undo(t.Context(), first.ID, "ops", "a mistake"))
	require.NoError(t, list.Undo(t.Context(), first.ID, "ops", "again"))
	assert.True(t, isRevoked(t, list, claims), "by the other entry")
	assert.Equal(t, []revocation.Entry{second}, list.All())
	require.NoError(t, list.Undo(t.Context(), second.ID, "ops", ""))
	assert.False(t, isRevoked(t, list, claims))
	revoke(t, list, revocation.Entry{Client: "app"})
	assert.True(t, isRevoked(t, list, claims), "a new entry is another one")
}

func TestAWebhooksDeliveryIsOneEntry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logs.Buffer
		list := newList(t, revocation.Options{Issuers: []string{"a", "b"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		delivery := revocation.Entry{Subject: "user", Before: time.Now(), By: "logto", Webhook: true}
		first := revoke(t, list, delivery)
		time.Sleep(time.Minute)
		assert.Equal(t, first, revoke(t, list, delivery))
		turned := delivery
		turned.Issuers, turned.Before = []string{"b", "a"}, delivery.Before.In(time.FixedZone("", 3600))
		assert.Equal(t, first, revoke(t, list, turned), "the same in other words")
		assert.Len(t, list.All(), 1)

		require.NoError(t, list.Undo(t.Context(), first.ID, "ops", "not this one"))
		again := revoke(t, list, delivery)
		assert.Equal(t, first.ID, again.ID)
		assert.Empty(t, list.All(), "a replay does not bring back what a person has undone")
		time.Sleep(8 * 24 * time.Hour)
		revoke(t, list, delivery)
		assert.Empty(t, list.All(), "nor when the undo is forgotten: it is too old to matter")

		later := delivery
		later.Before = time.Now()
		assert.NotEqual(t, first.ID, revoke(t, list, later).ID, "a new event is another entry")
		other := later
		other.Subject, other.Client = "", "user"
		assert.NotEqual(t, first.ID, revoke(t, list, other).ID)
		assert.Len(t, list.All(), 2)
		assert.Equal(t, 3, log.Count("revocation: revoked"), "the log says what was added")
	})
}

func TestWhatDoesNotFitIsRefusedAndPeopleHaveRoom(t *testing.T) {
	t.Parallel()
	list := newList(t, revocation.Options{Issuers: []string{"i"}, MaxEntries: 8})
	add := func(name string, webhook bool) error {
		_, err := list.Revoke(t.Context(), revocation.Entry{Subject: name, Before: time.Now(), By: "ops", Webhook: webhook})
		return err
	}
	for i := range 6 {
		require.NoError(t, add(fmt.Sprint("user", i), true))
	}
	require.ErrorIs(t, add("user6", true), revocation.ErrFull)
	require.NoError(t, add("by hand", false))
	require.NoError(t, add("by hand too", false))
	require.ErrorIs(t, add("too many", false), revocation.ErrFull)
	all := list.All()
	require.Len(t, all, 8, "nothing was forgotten")
	require.NoError(t, list.Undo(t.Context(), all[0].ID, "ops", ""), "undo needs no room")
	require.ErrorIs(t, add("too many", false), revocation.ErrFull, "an undone entry takes room for a week")
}

// Whoever undoes what webhooks have made keeps room for people all the same.
func TestAWebhooksUndoneEntryTakesARoomOfWebhooks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		list := newList(t, revocation.Options{Issuers: []string{"i"}, MaxEntries: 8})
		webhook := func(name string) error {
			_, err := list.Revoke(t.Context(), revocation.Entry{Subject: name, Before: time.Now(), By: "hook", Webhook: true})
			return err
		}
		for i := range 6 {
			require.NoError(t, webhook(fmt.Sprint("user", i)))
		}
		for _, e := range list.All() {
			require.NoError(t, list.Undo(t.Context(), e.ID, "ops", "forged"))
		}
		require.ErrorIs(t, webhook("another"), revocation.ErrFull)
		revoke(t, list, revocation.Entry{Client: "leaked"})
		time.Sleep(8 * 24 * time.Hour)
		for i := range 6 {
			require.NoError(t, webhook(fmt.Sprint("user", i)))
		}
		require.ErrorIs(t, webhook("another"), revocation.ErrFull)
	})
}

// Readers run beside writers that let the table grow, shrink and change.
func TestReadersMissNothingWhileTheListChanges(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	list := newList(t, revocation.Options{Issuers: []string{issuer.URL()}})
	claims := claimsOf(t, issuer, m2mauthtest.Token{AppID: "app", OrganizationID: "acme"})
	revoke(t, list, revocation.Entry{Organization: "acme", Client: "app"})
	free := claimsOf(t, issuer, m2mauthtest.Token{AppID: "free", OrganizationID: "other"})
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				assert.True(t, isRevoked(t, list, claims))
				assert.False(t, isRevoked(t, list, free))
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 1000 {
				e := revocation.Entry{By: "ops", Client: fmt.Sprintf("app %d %d", w, i)}
				if i%3 == 0 {
					e = revocation.Entry{By: "ops", Organization: "acme", Client: "app", Before: time.Now()}
				}
				e, err := list.Revoke(t.Context(), e)
				if assert.NoError(t, err) && i%2 == 0 {
					assert.NoError(t, list.Undo(t.Context(), e.ID, "ops", ""))
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	assert.Len(t, list.All(), 1001)
	for w := range 2 {
		for i := 1; i < 1000; i += 2 {
			if i%3 != 0 {
				require.True(t, isRevoked(t, list, claimsOf(t, issuer, m2mauthtest.Token{AppID: fmt.Sprintf("app %d %d", w, i)})))
				i += 100 // a few are enough, each with its signature
			}
		}
	}
}

func TestTheGuardAsksTheList(t *testing.T) {
	t.Parallel()
	issuer := m2mauthtest.NewIssuer()
	list := newList(t, revocation.Options{Issuers: []string{issuer.URL()}})
	guard := testguard.Quiet(t, issuer, func(c *m2mauth.Config) { c.Revoked = list.Revoked })
	token := issuer.Sign(m2mauthtest.Token{AppID: "app", Audience: testguard.Shop})
	_, err := guard.Verify(t.Context(), token)
	require.NoError(t, err)
	e := revoke(t, list, revocation.Entry{Client: "app"})
	_, err = guard.Verify(t.Context(), token)
	require.ErrorIs(t, err, m2mauth.ErrRevoked)
	require.NoError(t, list.Undo(t.Context(), e.ID, "ops", ""))
	_, err = guard.Verify(t.Context(), token)
	require.NoError(t, err)
}

func TestALookUpAllocatesNothing(t *testing.T) { // alone: AllocsPerRun counts what others allocate
	issuer := m2mauthtest.NewIssuer()
	list := newList(t, revocation.Options{Issuers: []string{issuer.URL()}})
	for _, e := range []revocation.Entry{{Client: "a"}, {Token: "a"}, {Organization: "a"}, {Organization: "a", Client: "a"}, {Organization: "a", Subject: "a"}, {Subject: "app", Before: time.Now()}} {
		revoke(t, list, e)
	}
	for _, id := range []string{"app", "free"} {
		claims := claimsOf(t, issuer, m2mauthtest.Token{AppID: id, OrganizationID: "acme"})
		assert.Equal(t, id == "app", isRevoked(t, list, claims))
		assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = list.Revoked(t.Context(), claims) }), id)
	}
}
