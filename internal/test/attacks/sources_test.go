package attacks

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	corpus "github.com/m2mauth/m2mauth/testdata/attacks"
)

// clauses are the sections of RFC 8725 and RFC 9700 that speak of attacks on who
// takes access tokens, and the advisories of other libraries. Each has an attack
// in the corpus, or a reason why not.
var clauses = map[string]string{
	"RFC 8725 section 2.1":  "",
	"RFC 8725 section 2.2":  "",
	"RFC 8725 section 2.3":  "",
	"RFC 8725 section 2.4":  "about the length of encrypted texts, which are refused unread",
	"RFC 8725 section 2.5":  "",
	"RFC 8725 section 2.6":  "",
	"RFC 8725 section 2.7":  "",
	"RFC 8725 section 2.8":  "",
	"RFC 8725 section 2.9":  "",
	"RFC 8725 section 3.1":  "",
	"RFC 8725 section 3.2":  "",
	"RFC 8725 section 3.3":  "",
	"RFC 8725 section 3.4":  "",
	"RFC 8725 section 3.5":  "",
	"RFC 8725 section 3.6":  "",
	"RFC 8725 section 3.7":  "",
	"RFC 8725 section 3.8":  "",
	"RFC 8725 section 3.9":  "",
	"RFC 8725 section 3.10": "",
	"RFC 8725 section 3.11": "",
	"RFC 8725 section 3.12": "",

	"RFC 9700 section 2.1":    "the client's and the authorization server's: redirects of a browser",
	"RFC 9700 section 2.2.1":  "",
	"RFC 9700 section 2.2.2":  "about refresh tokens, which no resource server sees",
	"RFC 9700 section 2.3":    "",
	"RFC 9700 section 2.4":    "about a grant, which no resource server sees",
	"RFC 9700 section 2.5":    "about the authentication of clients at the authorization server",
	"RFC 9700 section 2.6":    "TLS in front of the API is its operator's; that keys come over TLS is section 6.1 of RFC 8414",
	"RFC 9700 section 4.1":    "the authorization server's: its check of redirect URIs",
	"RFC 9700 section 4.2":    "about pages that a browser leaves, and a guard makes none",
	"RFC 9700 section 4.3.1":  "about authorization codes, which no resource server sees",
	"RFC 9700 section 4.3.2":  "",
	"RFC 9700 section 4.4":    "",
	"RFC 9700 section 4.5":    "about authorization codes, which no resource server sees",
	"RFC 9700 section 4.6":    "the client's: a token is slipped to it; to the API it is a good token of the client that it names",
	"RFC 9700 section 4.7":    "",
	"RFC 9700 section 4.8":    "about authorization codes, which no resource server sees",
	"RFC 9700 section 4.9":    "",
	"RFC 9700 section 4.9.1":  "",
	"RFC 9700 section 4.9.2":  "about who runs in the API itself; what is to be done before that is section 4.9.3",
	"RFC 9700 section 4.9.3":  "tokens are secrets: that none is logged or answered is held for every attack; the rest is sections 4.10.1 and 4.10.2",
	"RFC 9700 section 4.10":   "",
	"RFC 9700 section 4.10.1": "",
	"RFC 9700 section 4.10.2": "",
	"RFC 9700 section 4.10.3": "a discussion of metadata that lead clients to a resource server; it asks nothing of that server",
	"RFC 9700 section 4.11":   "",
	"RFC 9700 section 4.12":   "the authorization server's: 307 makes a browser send a password on",
	"RFC 9700 section 4.13":   "",
	"RFC 9700 section 4.14":   "about refresh tokens, which no resource server sees",
	"RFC 9700 section 4.15":   "",
	"RFC 9700 section 4.16":   "about pages in a frame, and a guard makes none",
	"RFC 9700 section 4.17":   "about messages between a browser's windows",

	"GHSA-4cf7-xm37-g63h": "", "CVE-2024-21664": "", "GHSA-pvcr-v8j8-j5q3": "", "CVE-2024-28122": "", "GHSA-hj3v-m684-v259": "",
	"CVE-2023-49290": "", "GHSA-7f9x-gw85-8grf": "", "GHSA-rm8v-mxj3-5rmq": "", "lestrrat-go/jwx#375": "", "lestrrat-go/jwx#381": "",
	"GHSA-675f-rq2r-jw82": "", "CVE-2025-22149": "", "CVE-2025-30204": "", "GHSA-mh63-6h87-95cp": "", "CVE-2025-27144": "",
	"GHSA-c6gw-w398-hv78": "", "CVE-2024-51744": "", "GHSA-29wx-vh33-7x7r": "", "CVE-2020-26160": "", "GHSA-w73w-5m7g-f7qc": "",
	"CVE-2024-28180": "", "CVE-2026-34986": "", "GHSA-78h2-9frx-2jm8": "", "CVE-2025-63811": "", "GHSA-9mj6-hxhv-w67j": "",
	"CVE-2025-59420": "", "CVE-2026-32597": "", "GHSA-752w-5fwx-jx9f": "", "GHSA-hm7r-c7qw-ghp6": "", "mpdavis/python-jose#413": "",
	"CVE-2015-9235": "", "CVE-2022-29217": "", "CVE-2023-48223": "", "CVE-2026-34950": "", "GHSA-mvf2-f6gm-w987": "", "CVE-2026-44351": "",
	"GHSA-5cx5-wh4m-82fh": "", "GHSA-c8v6-786g-vjx6": "", "GHSA-869p-cjfg-cm3x": "", "CVE-2018-0114": "", "CVE-2022-21449": "",
	"CVE-2025-30144": "", "CVE-2026-35030": "", "GHSA-jjhc-v7c2-5hh6": "", "GHSA-rp9m-7r4c-75qg": "", "CVE-2021-32701": "",
	"GHSA-qvp4-rpmr-xwrr": "", "GHSA-vfvf-6gx5-mqv6": "", "CVE-2025-64527": "", "GHSA-mp85-7mrq-r866": "",
	"CVE-2024-45809": "", "GHSA-wqr5-qmq7-3qw3": "", "CVE-2019-12995": "", "CVE-2025-1293": "", "GHSA-vxm9-8mfw-vc6g": "", "GHSA-mqq6-462x-jxmm": "",
	"CVE-2026-37979": "", "CVE-2026-18208": "", "CVE-2026-29000": "", "dadrus/heimdall#3452": "",
	"GHSA-4mq7-pvjg-xp2r": "takes two guards: TestATokenThatOneServerVouchesForIsNotRememberedForAnother of the core",
}

func TestEachClauseHasAnAttackOrAReason(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(corpus.Files, "*.json")
	require.NoError(t, err)
	var sources []string
	for _, name := range names {
		sources = append(sources, read(t, name).Source...)
	}
	for clause, reason := range clauses {
		assert.Equal(t, reason == "", slices.Contains(sources, clause), "%s has an attack, or a reason for none", clause)
	}
	slices.Sort(sources)
	t.Logf("%d attacks of %d sources", len(names), len(slices.Compact(sources)))
}
