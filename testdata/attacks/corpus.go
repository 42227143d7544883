// Package attacks is a folder of attacks, one a file, as embedded files: so the
// adapters' tests find them too where an adapter was fetched by itself. See
// internal/test/attacks for what the files say.
package attacks

import "embed"

// Files are the attacks.
//
//go:embed *.json
var Files embed.FS
