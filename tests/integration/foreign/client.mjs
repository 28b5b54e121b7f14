// SPDX-License-Identifier: BSD-2-Clause
// Node as a client, with @msgpack/msgpack for the encoding: node client.mjs HOST PORT FOLDER, where
// FOLDER/node_modules holds the package. Its answers go to stdout.
import { connect } from 'node:net';
import { createRequire } from 'node:module';

const [, , host, port, folder] = process.argv;
const { encode, decodeMultiStream } = createRequire(folder + '/')('@msgpack/msgpack');

const socket = connect(Number(port), host);
const waiting = new Map();
const events = [];
let onEvent = () => {};
let lastId = 0;

async function read() {
    for await (const frame of decodeMultiStream(socket)) {
        if (frame[0] === 1) {
            const [resolve, reject] = waiting.get(frame[1]);
            waiting.delete(frame[1]);
            frame[2] === null ? resolve(frame[3]) : reject(new Error(JSON.stringify(frame[2])));
        } else if (frame[0] === 2) {
            events.push(...frame[2][0].events);
            onEvent();
        }
    }
}

function call(method, params) {
    socket.write(encode([0, ++lastId, method, [params]]));
    return new Promise((resolve, reject) => waiting.set(lastId, [resolve, reject]));
}

function say(what, value) {
    console.log(what, JSON.stringify(value));
}

async function main() {
    const session = new Uint8Array(16).fill(7);
    say('hello', (await call('hello', { client: 'node', version: 1, session, events: true, token: null })).version);
    const payloads = [1, 2, 300].map((n) => encode([n]));
    const made = await call('task.submit', { number: 1, options: { kind: 2, fn: 'square' }, payloads });
    say('submit', made.count);
    const ids = [made.first, made.first + 1, made.first + 2];
    const { tasks } = await call('task.wait', { ids, timeout_ms: 20000 });
    say('wait', tasks.map((task) => [task.state, task.end.result.length]));
    await call('task.submit', { number: 0, options: {} }).catch((error) => say('error', error.message));
    while (events.length < 3) {
        await new Promise((resolve) => { onEvent = resolve; });
    }
    say('events', events.map((task) => task.id - made.first).sort());
    socket.end();
}

read();
main().catch((error) => { say('failed', String(error)); process.exit(1); });
