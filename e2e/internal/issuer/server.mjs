// The OIDC server of the end-to-end tests: oidc-provider, on which Logto is
// built, configured as Logto configures it.
//
//   PORT=40001 KEYS=keys.json node server.mjs
//
// Under /oidc it is an issuer. Beside that it takes orders:
//
//   POST /test/rotate?alg=RS256      a new key signs; the one before stays published
//   POST /test/clock?offset=-3600    the server's clock runs this many seconds ahead
//   POST /test/lifetime?seconds=2    of access tokens issued from now on
//   GET  /test/fetches               how often the key set was asked for
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import process from "node:process";

// Early versions of Node.js 20 lack URL.parse, which oidc-provider uses.
URL.parse ??= (url, base) => (URL.canParse(url, base) ? new URL(url, base) : null);
const { Provider, errors } = await import("oidc-provider");

const port = Number(process.env.PORT);

// What an administrator of Logto would set up: API resources with their
// permissions, and what each app's role grants.
const resources = ["https://shopping.api", "https://billing.api"];
const roles = {
  reader: ["read:products"],
  writer: ["write:products"],
  editor: ["read:products", "write:products"],
  "no-role": [],
};
const organization = { id: "acme", members: ["reader"], scopes: ["read:invoices"] };
const organizationAudience = `urn:logto:organization:${organization.id}`;

let lifetime = 3600;
let fetches = 0;
let provider;

// The keys outlive the process, the current one first.
let keys = existsSync(process.env.KEYS) ? JSON.parse(readFileSync(process.env.KEYS)) : [];
if (keys.length === 0) rotate("ES384");
else restart();

function rotate(alg) {
  // The way by PEM is a detour. Node.js 20 now and then hangs where the key that it
  // has just made is exported as a JWK: that locks the key, and so does the garbage
  // collection of what made it.
  const encodings = { publicKeyEncoding: { type: "spki", format: "pem" }, privateKeyEncoding: { type: "pkcs8", format: "pem" } };
  const { privateKey } =
    alg === "ES384"
      ? generateKeyPairSync("ec", { namedCurve: "P-384", ...encodings })
      : generateKeyPairSync("rsa", { modulusLength: 4096, ...encodings });
  keys = [createPrivateKey(privateKey).export({ format: "jwk" }), ...keys].slice(0, 2);
  writeFileSync(process.env.KEYS, JSON.stringify(keys), { mode: 0o600 });
  restart();
}

// The keys of a provider cannot be changed, so that each rotation makes another one.
function restart() {
  const alg = keys[0].kty === "EC" ? "ES384" : "RS256";
  provider = new Provider(`http://127.0.0.1:${port}/oidc`, {
    jwks: { keys: structuredClone(keys) },
    enabledJWA: { idTokenSigningAlgValues: ["ES384", "RS256", "PS256"] },
    ttl: { ClientCredentials: () => lifetime },
    clients: Object.keys(roles).map((app) => ({
      client_id: app,
      client_secret: `secret-of-${app}`,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    clientDefaults: { id_token_signed_response_alg: alg },
    routes: { authorization: "/auth", jwks: "/jwks", token: "/token" },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // Without a resource or an organization the token is opaque. Logto gives such
        // tokens to users only, and refuses an app that names neither.
        defaultResource: (ctx) => (ctx.oidc.body.organization_id ? organizationAudience : undefined),
        getResourceServerInfo: (ctx, resource, client) => {
          if (!resources.includes(resource) && resource !== organizationAudience) {
            throw new errors.InvalidTarget("resource indicator is missing, or unknown");
          }
          return {
            audience: resource,
            // What is not granted is left out of the token in silence.
            scope: (resource === organizationAudience ? organization.scopes : roles[client.clientId]).join(" "),
            accessTokenFormat: "jwt",
            jwt: { sign: { alg } },
          };
        },
      },
    },
    scopes: ["openid", ...roles.editor, ...organization.scopes],
    // The organization's ID is a claim only if the token is for a resource, too.
    extraTokenClaims: (ctx) => {
      const id = ctx.oidc.body.organization_id;
      if (id === undefined) return undefined;
      if (id !== organization.id || !organization.members.includes(ctx.oidc.client.clientId)) {
        throw new errors.AccessDenied("app has not associated with the organization");
      }
      return ctx.oidc.body.resource ? { organization_id: id } : undefined;
    },
  });
  provider.on("server_error", (_, error) => console.error(error));
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path === "/jwks") {
      fetches++;
      ctx.set("Cache-Control", "no-cache, max-age=0, must-revalidate");
    }
  });
}

const now = Date.now;
const orders = {
  "POST /test/rotate": (query) => rotate(query.get("alg")),
  "POST /test/clock": (query) => { Date.now = () => now() + 1000 * Number(query.get("offset")); },
  "POST /test/lifetime": (query) => { lifetime = Number(query.get("seconds")); },
  "GET /test/fetches": () => fetches,
};

createServer((request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  const order = orders[`${request.method} ${url.pathname}`];
  if (order) {
    response.end(`${order(url.searchParams) ?? "done"}`);
  } else if (url.pathname.startsWith("/oidc/")) {
    request.originalUrl = request.url; // as a mounted application has it
    request.url = request.url.slice("/oidc".length);
    provider.callback()(request, response);
  } else {
    response.writeHead(404).end("Not Found");
  }
}).listen(port, "127.0.0.1");
