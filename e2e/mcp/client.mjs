// A client by the TypeScript SDK with the client credentials of an app. It lists the
// tools of the MCP server at URL and calls CALLS, and prints as JSON what came of each
// and every request that it sent.
import { extractWWWAuthenticateParams } from '@modelcontextprotocol/sdk/client/auth.js';
import { ClientCredentialsProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { URL: url, ISSUER, APP_ID, APP_SECRET, SCOPE, CALLS } = process.env;
const scopes = new Set(SCOPE.split(' '));
const requests = [];

// The SDK's provider asks for the scopes it was made with, whatever a challenge names.
class Provider extends ClientCredentialsProvider {
  prepareTokenRequest() {
    return super.prepareTokenRequest([...scopes].join(' '));
  }
}

async function recordingFetch(input, init) {
  const response = await fetch(input, init);
  const { scope, error } = extractWWWAuthenticateParams(response);
  for (const name of scope?.split(' ') ?? []) scopes.add(name);
  const request = { method: init?.method ?? 'GET', url: String(input), status: response.status, scope, error };
  const body = String(init?.body ?? '');
  if (body.startsWith('{')) {
    const { method, params } = JSON.parse(body);
    request.message = method;
    if (method === 'tools/call') request.tool = params.name;
  } else if (body) {
    const form = new URLSearchParams(body);
    request.form = { grant_type: form.get('grant_type'), resource: form.get('resource'), scope: form.get('scope') };
  }
  requests.push(request);
  return response;
}

const provider = new Provider({ clientId: APP_ID, clientSecret: APP_SECRET, expectedIssuer: ISSUER, scope: SCOPE });
const client = new Client({ name: 'typescript', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: provider, fetch: recordingFetch }));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const results = [];
for (const call of JSON.parse(CALLS)) {
  try {
    results.push((await client.callTool(call)).structuredContent);
  } catch (error) {
    results.push({ error: error.message });
  }
}
await client.close();
console.log(JSON.stringify({ tools, results, requests }));
