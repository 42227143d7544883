// Adds TOKEN to every request that the conformance suite sends, by fetch and by undici,
// on which fetch is built: the suite has no way to give it one.
import { Agent, setGlobalDispatcher } from 'undici';

const authorization = `Bearer ${process.env.TOKEN}`;
const add = (headers) => (Array.isArray(headers) ? [...headers, 'authorization', authorization] : { ...headers, authorization });

setGlobalDispatcher(
  new Agent().compose((dispatch) => (options, handler) => dispatch({ ...options, headers: add(options.headers) }, handler)),
);
