// Package observability shows how decisions of a guard become metrics, attributes of a
// span and an audit log. The first two are modules to import, adapters/promauth and
// adapters/otelauth: see the tests. Copy Audit, and write what your auditors ask for.
package observability

import (
	"context"
	"log/slog"

	"github.com/m2mauth/m2mauth"
)

// Audit writes who did what: the app, the token's ID, the rule and the outcome.
// Requests without a good token have no caller, and anybody can send any number
// of them: they are left to the metrics.
func Audit(logger *slog.Logger) func(context.Context, m2mauth.Decision) {
	return func(ctx context.Context, d m2mauth.Decision) {
		if d.Claims.IsZero() {
			return
		}
		logger.InfoContext(ctx, "decision",
			"outcome", d.Outcome,
			"rule", d.Rule.String(),
			"issuer", d.Claims.Issuer(),
			"client_id", d.Claims.ClientID(),
			"sub", d.Claims.Subject(),
			"jti", d.Claims.ID(),
			"organization_id", d.Claims.OrganizationID(),
		)
	}
}
