package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const isc = `Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS
OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER
TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.
`

const unlicense = `This is free and unencumbered software released into the public domain.

Anyone is free to copy, modify, publish, use, compile, sell, or distribute this
software, either in source code form or as a compiled binary, for any purpose,
commercial or non-commercial, and by any means.

In jurisdictions that recognize copyright laws, the author or authors of this
software dedicate any and all copyright interest in the software to the public
domain. We make this dedication for the benefit of the public at large and to the
detriment of our heirs and successors. We intend this dedication to be an overt act
of relinquishment in perpetuity of all present and future rights to this software
under copyright law.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR
ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR
OTHER DEALINGS IN THE SOFTWARE.
`

func TestLicensesOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files    map[string]string
		licenses string
		err      string
	}{
		"one":                          {map[string]string{"LICENSE": isc, "main.go": "package x"}, "ISC", ""},
		"one in a file with an ending": {map[string]string{"license.txt": isc}, "ISC", ""},
		"one with a copyright notice":  {map[string]string{"COPYING": "Copyright (c) 2020 Somebody\n\n" + isc}, "ISC", ""},
		"one, and a program about it":  {map[string]string{"LICENSE": isc, "license.go": "package license"}, "ISC", ""},
		"none":                         {map[string]string{"README": isc}, "", "no license was found"},
		"one that is not accepted":     {map[string]string{"LICENSE": unlicense}, "Unlicense", "the license Unlicense is not one of"},
		"one of two is not accepted":   {map[string]string{"LICENSE": isc, "LICENSE.other": unlicense}, "ISC,Unlicense", "Unlicense is not one of"},
		"a condition was added":        {map[string]string{"LICENSE": isc + strings.Repeat("Not for use on Sundays, and never by anybody else than us. ", 10)}, "", "is the text of a license that is known"},
		"an empty file":                {map[string]string{"LICENSE": ""}, "", "is the text of a license that is known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			licenses, err := licensesOf(dir)
			if err == nil {
				err = accept(licenses, accepted)
			}
			if got := strings.Join(licenses, ","); got != test.licenses {
				t.Errorf("got the licenses %q, want %q", got, test.licenses)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got the error %v, want one with %q", err, test.err)
			}
		})
	}
}

func TestListNPM(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ packages, rows, err string }{
		"nothing but the issuer": {`"": {"name": "issuer"}`, "", ""},
		"in the order of names": {`"node_modules/koa": {"version": "3.3.0", "license": "MIT"}, "node_modules/@types/ms": {"version": "2.1.0", "license": "ISC"}`,
			"| `@types/ms` | 2.1.0 | ISC |\n| `koa` | 3.3.0 | MIT |\n", ""},
		"one below others, and twice": {`"node_modules/a/node_modules/ms": {"version": "1.0.0", "license": "MIT"}, "node_modules/b/node_modules/c/node_modules/ms": {"version": "1.0.0", "license": "MIT"}`,
			"| `ms` | 1.0.0 | MIT |\n", ""},
		"one that is not accepted": {`"node_modules/ms": {"version": "1.0.0", "license": "AGPL-3.0"}`, "| `ms` | 1.0.0 | AGPL-3.0 |\n", "ms 1.0.0: the license AGPL-3.0 is not one of"},
		"none":                     {`"node_modules/ms": {"version": "1.0.0"}`, "| `ms` | 1.0.0 |  |\n", "ms 1.0.0: the license  is not one of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := t.TempDir()
			dir := filepath.Join(repository, "e2e", "internal", "issuer")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "package-lock.json"), []byte(`{"packages": {`+test.packages+`}}`), 0o644); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err := listNPM(repository, locks[0], &out)
			if _, rows, _ := strings.Cut(out.String(), "|---|---|---|\n"); rows != test.rows {
				t.Errorf("got the rows\n%swant\n%s", rows, test.rows)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got the error %v, want one with %q", err, test.err)
			}
		})
	}
}
